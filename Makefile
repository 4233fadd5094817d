# The one list of commands; the README, CONTRIBUTING and CI call these.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.PHONY: help install run test test-fast test-long test-onprem test-cluster test-faults audit-deps lint format types docs wheel clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(READY)  ## virtual environment in .venv, with everything in it

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("robustsearch needs Python 3.11 or later, but $(PYTHON) is %d.%d; try: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

run: $(READY)    ## the main job on the embedded data, and its front as a picture; ARGS="--trials 4" makes it smaller
	$(BIN)/python -m robustsearch.run --space lwta $(ARGS)

test: lint types  ## linter, types, all tests but the long ones and those of clusters
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not long and not cluster'

test-fast: $(READY)  ## the tests that are not slow
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not long and not cluster'

test-long: $(READY)  ## tests of more than a minute each
	$(BIN)/python -m pytest -n 2 -m 'long and not cluster'

test-onprem: $(READY)  ## cluster/onprem.yaml on machines of namespaces: a search, one of them lost; needs root
	$(BIN)/python -m pytest -rs tests/cluster/test_onprem.py

test-cluster: $(READY)  ## the same, cluster/config.yaml on a cloud of such machines, and cluster/slurm.sbatch: forty minutes
	$(BIN)/python -m pytest -rs -m cluster tests/cluster

lint: $(READY)   ## linter and formatter, nothing changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## formatter and the linter's safe mends
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## static types
	$(BIN)/mypy

test-faults: $(READY)  ## die at every write of a simulated search, then SIGKILLs over a real one until it ends: up to an hour
	$(BIN)/python -m benchmarks.faults points
	$(BIN)/python -m benchmarks.faults kills

audit-deps: $(READY)  ## known advisories about the installed packages; needs a network
	$(BIN)/python -m pip_audit --skip-editable --strict

docs: $(READY)   ## the documentation, into docs/_build/index.html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

wheel: $(READY)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:           ## remove everything that the commands above made, but for runs/
	rm -rf $(VENV) build dist docs/_build docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
