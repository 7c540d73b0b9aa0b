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
	$(UV_COMPILE) --extra worker --extra openai --extra langchain -o requirements/worker-providers.txt pyproject.toml
	$(UV_COMPILE) --extra remediator -o requirements/remediator.txt pyproject.toml
	$(UV_COMPILE) --extra worker --extra remediator --extra test -o requirements/dev.txt pyproject.toml
	$(UV_COMPILE) --extra worker --extra remediator --extra test --extra bench -o requirements/bench.txt pyproject.toml

# Said before minutes go into an environment that could not be used. ci/demo checks the same.
.PHONY: able
able:
	@if [ "$${CLUSTER:-local}" = local ] && [ "$$(uname -s) $$(id -u)" != "Linux 0" ]; then \
	  echo "a cluster on this machine needs Linux and root: sudo make $(MAKECMDGOALS);" \
	    "CLUSTER=current VALUES=<file> takes the cluster of your kubeconfig instead" >&2; exit 2; fi

.PHONY: demo
demo: able venv ## a real cluster, the chart, real messages, a node fault, a hung worker; ends with the count
	$(BIN)/python -m ci.demo $(DEMO)

.PHONY: demo-down
demo-down: able venv ## take all of it down again; nothing is left behind
	$(BIN)/python -m ci.demo --down

.PHONY: test
test: venv ## everything, from lint to the real cluster
	ci/test pure/worker+pure/remediator+pure+lint simulation/worker+simulation chart+alerts broker+control_plane models+chaos cluster

.PHONY: test-fast
test-fast: venv ## lint, and the pure tests that wait for nothing: under a minute, for the inner loop
	ci/test --fast pure/remediator+pure+lint

.PHONY: test-long
test-long: venv ## 20,000 simulated worlds, a thousand seeded faults (CHAOS_SEED replays one), every alert provoked, every API call killed
	$(BIN)/python -m tests.simulation --seeds 20000
	SELFHEAL_LONG=1 ci/test pure broker chaos provoked models control_plane chart cluster

SEEDS ?= 300
.PHONY: simulate
simulate: venv ## both programs in simulated worlds, one for each of SEEDS=300; SEED=7 SIDE=worker replays one
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(SIDE),--side $(SIDE))

.PHONY: bench
bench: able venv ## all benchmarks, an hour: BENCHMARKS.md, docs/benchmarks.json, plots
	ci/bench tests.benchmarks.worker
	ci/bench tests.benchmarks.growth
	ci/bench tests.benchmarks.remediator
	$(BIN)/python -m tests.benchmarks.simulation
	$(BIN)/python -m tests.benchmarks.report

.PHONY: bench-worker
bench-worker: venv ## the worker beside the bare loop, Celery, Dramatiq and FastStream; BENCH="-o json" for programs
	@ci/bench tests.benchmarks.worker $(BENCH)

.PHONY: chaos
chaos: able venv ## faults on a real cluster under load, 15 minutes (CHAOS="--seed 7 --minutes 5" replays)
	$(BIN)/python -m ci.chaos $(CHAOS)

.PHONY: bench-remediator
bench-remediator: able venv ## the remediator beside a bare watch loop and kubectl; BENCH="latency -o json" for one row
	@$(BIN)/python -m tests.benchmarks.remediator $(BENCH)

.PHONY: bench-simulation
bench-simulation: venv ## node-hours and messages that are simulated in a second, two minutes; BENCH="--seeds 300" for more
	@$(BIN)/python -m tests.benchmarks.simulation $(BENCH)

.PHONY: lint
lint: venv ## ruff, mypy, import-linter, shellcheck, the workflows
	ci/test lint

.PHONY: pictures
pictures: venv ## the dashboards as docs/*.png, of the demo that is up (PICTURES=--sample: of made-up data)
	$(BIN)/python -m ci.pictures $(PICTURES)

.PHONY: images
images: venv ## build the images of worker and remediator, print their sizes
	$(BIN)/python -m ci.images build worker remediator
	$(BIN)/python -m ci.images sizes

.PHONY: release
release: venv ## dist/: the chart's package, the wheel, both images' archives, SHA256SUMS; RELEASE="--key NAME --keyring FILE" signs the chart
	$(BIN)/python -m ci.release build $(RELEASE)

.PHONY: clean
clean: ## remove what was made in this folder (the build cache stays: see docs/install.md)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
