# Everything below makes its own tools: .venv (Python) and .tools (the rest), quick the second time.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.tools/bin:$(CURDIR)/.tools/node/bin:$(PATH)
# Hundreds of processes are started by the tests: where this is set, each of them compiles all it imports anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
UV := $(BIN)/uv
TOOLS := .tools/protogen/.made .tools/buf.made .tools/grpcurl.made .tools/azurite.made .tools/oldest/.made .tools/newest/.made \
	.tools/polyglot.made .tools/podman.made

include tools/versions.mk

ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -- set-up -----------------------------------------------------------------------------------------

setup: .venv/.made ## Make .venv and .tools with everything that development needs
	@$(MAKE) -j4 tools

tools: $(TOOLS)
	@:

.venv/.made: pyproject.toml constraints.txt tools/venv.sh
	@sh tools/venv.sh
	@touch $@

.tools/protogen/.made: tools/versions.mk | .venv/.made
	@sh tools/tool_venv.sh .tools/protogen "$(PROTOGEN)" && touch $@

# The project on the oldest versions that pyproject.toml allows, and the wire's runtime at its newest.
.tools/oldest/.made: pyproject.toml tools/tool_venv.sh | .venv/.made
	@sh tools/tool_venv.sh .tools/oldest "--resolution lowest-direct -e ." && touch $@

.tools/newest/.made: tools/versions.mk tools/tool_venv.sh | .venv/.made
	@sh tools/tool_venv.sh .tools/newest "$(NEWEST)" && touch $@

.tools/buf.made: tools/versions.mk tools/buf.sh | .venv/.made
	@sh tools/buf.sh "$(BUF)" && touch $@ || true

# After buf, which may have to fetch npm.
.tools/azurite.made: tools/versions.mk tools/azurite.sh | .venv/.made .tools/buf.made
	@sh tools/azurite.sh "$(AZURITE)" && touch $@ || true

.tools/grpcurl.made: tools/versions.mk tools/grpcurl.sh | .venv/.made
	@sh tools/grpcurl.sh "$(GRPCURL)" && touch $@ || true

.tools/podman.made: tools/podman.sh | .venv/.made
	@sh tools/podman.sh && touch $@ || true

POLYGLOT := $(wildcard proto/headrace/v1/*.proto examples/polyglot/*/*.go examples/polyglot/*/*/*.go \
	examples/polyglot/ts-client/*.ts examples/polyglot/ts-client/*.json)
.tools/polyglot.made: tools/versions.mk tools/polyglot.sh examples/polyglot/buf.gen.yaml \
		$(filter-out %.pb.go,$(POLYGLOT)) | .tools/buf.made .tools/grpcurl.made
	@sh tools/polyglot.sh "$(PROTOC_GEN_GO)" "$(PROTOC_GEN_GO_GRPC)" && touch $@ || true

constraints: .venv/.made ## Write constraints.txt anew from pyproject.toml
	@$(UV) pip compile -q pyproject.toml --group dev --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --upgrade -o constraints.txt

# -- daily work -------------------------------------------------------------------------------------

run: .venv/.made ## Run the example pipeline over real data, on a server of its own
	@$(BIN)/python examples/run.py

dev: .venv/.made ## Run a server in the foreground (HEADRACE_HOME says where it keeps its data)
	@$(BIN)/headrace server start $(ARGS)

test: setup ## Run every test (ARGS="-n 0 -k name" chooses, in one process)
	@$(BIN)/pytest -n 4 --dist loadgroup $(ARGS)

lint: setup ## Style, layers, protos and generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@buf lint
	@buf format --diff --exit-code
	@$(BIN)/python tools/breaking.py
	@$(MAKE) proto-check

types: setup ## pyright and mypy, both strict and at once
	@$(MAKE) -j2 pyright mypy

pyright: .venv/.made ## Types, as pyright sees them
	@$(BIN)/pyright --warnings

mypy: .venv/.made ## Types, as mypy sees them
	@$(BIN)/mypy

format: setup ## Put Python and proto files into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@buf format -w

proto: .tools/protogen/.made ## Generate sdk/headrace/v1 from proto/
	@PATH="$(CURDIR)/.tools/protogen/bin:$$PATH" .tools/protogen/bin/python tools/protogen.py

proto-check: .tools/protogen/.made ## Fail when sdk/headrace/v1 is not what proto/ gives
	@PATH="$(CURDIR)/.tools/protogen/bin:$$PATH" .tools/protogen/bin/python tools/protogen.py --check

client: .venv/.made ## Write the blocking client anew from the async one
	@$(BIN)/python tools/clientgen.py

docs: .venv/.made ## Write docs/settings.md anew from the code
	@$(BIN)/python tools/settings_page.py

parity: .venv/.made ## Ask Prefect anew what it does with the programs of tests/parity
	@$(BIN)/python -m tools.parity

SEEDS ?= 20
simulate: .venv/.made ## Live through seeded histories of faults in virtual time (SEEDS=100, ARGS="--first 7")
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

MINUTES ?= 5
chaos: .venv/.made ## Break real servers, workers and databases for a while (SEED=7 MINUTES=30)
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: .venv/.made ## Measure, and print one table
	@$(BIN)/python -m benchmarks $(ARGS)

rpc: .tools/grpcurl.made ## Ask a running server: make rpc ADDRESS=… CALL=headrace.v1.RunService/ListRuns DATA='{"page_size": 3}'
	@grpcurl -plaintext $(if $(DATA),-d '$(DATA)') $(or $(ADDRESS),127.0.0.1:4200) $(or $(CALL),list)

clean: ## Remove everything that was made here, .venv and .tools too
	@rm -rf .venv .tools out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup tools constraints run dev test lint types pyright mypy format proto proto-check client docs parity bench simulate chaos rpc clean
