# Every target sets up .venv in this checkout by itself, once.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup quickstart example test lint fuzz bench bench-overhead bench-loadgen bench-search docs lock clean

help:  ## Show the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Create .venv with the locked versions

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && \
	  apt-get update -qq && apt-get install -y -qq python3-venv; } || \
	  { echo "Python's venv is missing: sudo apt-get install python3-venv" >&2; exit 2; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "Installing the locked packages into .venv (TensorFlow is 250 MB; a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: $(READY)  ## Tune a small network on the embedded server, to the report
	$(BIN)/tuner tune scenarios/quickstart.toml

# The latest run is the last by name, which begins with the time.
example: $(READY)  ## Run the quickstart and keep it as results/example
	$(BIN)/tuner tune scenarios/quickstart.toml
	rm -rf results/example
	mv "$$(ls -d results/*Z-quickstart* | tail -1)" results/example
	rm -f results/example/.lock results/example/study.db results/example/requests.pool
	find results/example/trials -type f ! -name '*.hlog' ! -name batching_parameters.txt -delete
	$(BIN)/tuner report results/example

# What measures, and what shares the one engine, has the machine to itself; before it the others
# share the processors. Both parts are run, whatever the first finds.
#
# Without a browser the tests of the page are skipped, with the reason. HdrHistogram's own tool is
# 0.1 MB beside a Java that is there; none is brought for it.
test: $(READY)  ## Run every test; on Debian as root it brings a Docker Engine
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "Chromium is not installed, so the page is not tested in a browser"
	@! command -v java >/dev/null || [ -e /usr/share/java/hdrhistogram.jar ] || \
	  [ "$$(id -u)" != 0 ] || { apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends libhdrhistogram-java >/dev/null; } || true
	.ci/with-engine sh -c '\
	  $(PYTEST) -m "not (alone or docker)" -n logical --dist worksteal; others=$$?; \
	  $(PYTEST) -m "alone or docker" && exit $$others'

lint: $(READY)  ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# atheris is not locked: it is needed here alone, and not for every Python.
FUZZ_SECONDS ?= 60
fuzz: $(READY)  ## Fuzz the load generator's HTTP/2 client for FUZZ_SECONDS
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check atheris==3.0.0
	$(BIN)/python tests/fuzz/fuzz_client.py -max_total_time=$(FUZZ_SECONDS) -max_len=2048

bench: $(READY)  ## Measure the embedded server's cost beside plain grpcio
	$(BIN)/python benchmarks/embedded_server.py

bench-overhead: $(READY)  ## Measure what of a trial is not measuring, by restart and by swap
	.ci/with-engine $(BIN)/python benchmarks/trial_overhead.py --json benchmarks/trial_overhead.json

# locust brings gevent, which patches what everything else uses: it gets a .venv of its own.
LOCUST := benchmarks/loadgen/.venv
bench-loadgen: $(READY)  ## Measure load generators side by side (Debian: nghttp2)
	@[ -x $(LOCUST)/bin/locust ] || { $(PYTHON) -m venv $(LOCUST) && \
	  $(LOCUST)/bin/pip install --quiet --disable-pip-version-check locust==2.47.0 grpcio==1.85.3; }
	$(BIN)/python benchmarks/loadgen/bench.py $(PARTS)

bench-search: $(READY)  ## Replay every sampler on recorded grids: starts until near the best
	$(BIN)/python benchmarks/search/replay.py

docs: $(READY)  ## Write docs/scenario.md from the scenario's own descriptions
	$(BIN)/tuner schema --format markdown --out docs/scenario.md

# Needs uv (pip install uv). The override in pyproject.toml keeps TensorFlow from coming twice.
lock:  ## Resolve pyproject.toml into requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-emit-index-url --no-annotate --group dev --output-file requirements.lock \
	  pyproject.toml requirements.in

clean:  ## Remove .venv and caches; results and models stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
