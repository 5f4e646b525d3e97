#!/bin/sh
# polyglot.sh PROTOC_GEN_GO PROTOC_GEN_GO_GRPC: the worker in Go and the client in TypeScript of
# examples/polyglot, generated from proto/ and built. Go comes from PyPI where the machine has none that is
# new enough (as for grpcurl), Node from where buf got it.
set -eu

give_up() {
    echo "examples/polyglot is not built ($1): its tests are skipped"
    exit 1
}

go=go
[ ! -x .tools/go/bin/go ] || go="$PWD/.tools/go/bin/go"
"$go" version >/dev/null 2>&1 || give_up "no Go"
[ -x .tools/bin/buf ] || give_up "no buf"
echo "Building examples/polyglot"
for plugin in "$@"; do
    GOBIN="$PWD/.tools/bin" "$go" install "$plugin" || give_up "$plugin cannot be had"
done
cd examples/polyglot
npm install --silent --no-package-lock --prefix ts-client || give_up "npm install failed"
PATH="$PWD/ts-client/node_modules/.bin:$PWD/../../.tools/bin:$PATH" buf generate || give_up "buf generate failed"
(cd go-worker && "$go" build -o ../../../.tools/bin/headrace-go-worker .) || give_up "go build failed"
(cd ts-client && npm run --silent check) || give_up "the TypeScript does not type-check"
