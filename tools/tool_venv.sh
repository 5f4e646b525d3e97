#!/bin/sh
# tool_venv.sh FOLDER "REQUIREMENTS": a virtual environment of its own beside .venv.
set -eu
folder=$1
echo "Making $folder"
rm -rf "$folder"
.venv/bin/python -m venv --without-pip "$folder"
# The requirements are words on purpose.
if [ -x .venv/bin/uv ]; then
    .venv/bin/uv pip install -q --python "$folder/bin/python" $2
else
    .venv/bin/python -m pip --python "$folder/bin/python" install -q --disable-pip-version-check $2
fi
