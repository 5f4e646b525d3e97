#!/bin/sh
# Makes .venv with the project (editable) and everything that development needs, in pinned versions.
set -eu

find_python() {
    for name in python3.11 python3.12 python3.13 python3; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "Python 3.11 or newer with its venv module is needed (Debian: apt-get install python3-venv)" >&2
    exit 1
}

if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi

# Another folder's settings must not choose where the packages go.
unset VIRTUAL_ENV PYTHONPATH

.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
if [ -x .venv/bin/uv ] || .venv/bin/python -m pip install -q --disable-pip-version-check uv; then
    .venv/bin/uv pip install -q --python .venv/bin/python -c constraints.txt --group dev -e .
else
    echo "uv could not be installed: pip does the same, slower"
    .venv/bin/python -m pip install -q --disable-pip-version-check 'pip>=25.1'
    .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt --group dev -e .
fi
