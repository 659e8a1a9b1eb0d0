# The developer's words. `make run` and `make test` are all a newcomer needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SPEED ?=
ONCE ?=
JSON ?=

.DEFAULT_GOAL := help
.PHONY: help run tools test lint js native bench bench-full load lock clean

help:  ## list these words
	@grep -E '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Stagecast needs Python 3.11 or newer: make PYTHON=python3.12 $@"; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "setting up the test tools ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.lock
	@touch $@

$(VENV)/.heavy: requirements-heavy.lock $(VENV)/.dev
	@echo "setting up the browser driver, the Autobahn cases, the fuzzer ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-heavy.lock
	@touch $@

tools: $(VENV)/.heavy  ## what the browser, conformance and fuzz tests need besides (Debian: chromium)

$(VENV): $(VENV)/.run  ## make .venv with .venv/bin/stagecast

run: $(VENV)/.run  ## the whole way on this machine: SPEED=2 plays twice as fast, ONCE=1 ends after the plan
	@exec $(BIN)/stagecast demo $(if $(SPEED),--speed $(SPEED)) $(if $(ONCE),--once)

test: $(VENV)/.dev  ## the tests; STAGECAST_REQUIRE=kafka,cassandra turns skips into failures
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup $(ARGS)

lint: $(VENV)/.dev  ## style, types, import contracts, compose file, docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.check_compose
	@$(BIN)/python -m tests.check_docs

js:  ## the browser SDK: types, build with its size, tests (needs Node 20)
	@cd sdk/js && npm ci --silent --no-fund --no-audit && npm run --silent build && npm test --silent && npm run --silent test:dist

native: $(VENV)/.run  ## compile the fan-out's C loop, which is optional (needs a C compiler)
	@$(BIN)/python -m pushy.native

bench: $(VENV)/.dev  ## what a host costs, beside a bare C send() loop: some 5 minutes; JSON=file keeps the figures
	@$(BIN)/python -m tests.bench --page docs/performance.md $(if $(JSON),--json $(JSON)) $(ARGS)

bench-full: $(VENV)/.dev  ## all benchmarks, with more rounds, growth and peers: an hour
	@$(BIN)/python -m tests.bench --full --page docs/performance.md $(if $(JSON),--json $(JSON)) $(ARGS)

load: $(VENV)/.dev  ## Locust against a running host: see docs/howto/operate.md
	@$(BIN)/locust -f loadtest/locustfile.py --headless $(ARGS)

lock:  ## renew both locks (needs uv)
	uv pip compile -q pyproject.toml --extra kafka --extra cassandra --extra build $(LOCKOPTS) -o requirements.lock
	uv pip compile -q pyproject.toml $(addprefix --extra ,kafka cassandra build load dev) -c requirements.lock $(LOCKOPTS) -o requirements-dev.lock
	uv pip compile -q pyproject.toml --extra heavy -c requirements-dev.lock $(LOCKOPTS) -o requirements-heavy.lock
LOCKOPTS := --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --universal

clean:  ## remove .venv and the demo's data
	rm -rf $(VENV) .stagecast
