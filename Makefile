# selfheal: `make demo` and `make test` are all the set-up there is. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV_VERSION := 0.13.8
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: help
help: ## list what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.stamp: requirements/dev.txt pyproject.toml
	@ci/venv $(VENV) $(PYTHON)
	@touch $@

.PHONY: venv
venv: $(VENV)/.stamp ## the Python environment, from the locked requirements

.PHONY: lock
lock: venv ## lock the requirements again from pyproject.toml, with hashes
	$(BIN)/pip install --quiet uv==$(UV_VERSION)
	$(UV_COMPILE) --extra worker -o requirements/worker.txt pyproject.toml
	$(UV_COMPILE) --extra remediator -o requirements/remediator.txt pyproject.toml
	$(UV_COMPILE) --extra worker --extra remediator --extra test -o requirements/dev.txt pyproject.toml
	$(UV_COMPILE) --all-extras -o requirements/bench.txt pyproject.toml
