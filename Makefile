# Every command a person or CI types. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test siege check bench format clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make demo PULP=1`; 0, no and nothing mean without.
WITH_PULP := $(if $(filter-out 0 no,$(PULP)),--pulp)
# Without cached bytecode each of the tests' processes, and every process of every farm that they start, compiles all
# modules again; some machines switch the cache off.
export PYTHONDONTWRITEBYTECODE :=
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

help: ## list these commands
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.ready ## from nothing to packages built, and one installed; PULP=1 publishes to a real Pulp
	@deploy/bootstrap base $(WITH_PULP:--pulp=postgresql)
	@$(SUDO) $(BIN)/python -m deploy.demo.tour $(WITH_PULP)

test: $(VENV)/.ready-dev ## the whole test suite, installing what it needs
	@deploy/bootstrap base postgresql emulators siege browser
	@# Tests call tools of wheels, such as createrepo_c, by name.
	@$(SUDO) env PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --numprocesses 3 --dist loadgroup $(ARGS)

siege: $(VENV)/.ready-dev ## break a farm for MINUTES=10 in every way, and judge it; SEED=n; DATABASE=sqlite, postgresql, or both in half the time each
	@deploy/bootstrap base postgresql siege
	@$(SUDO) $(BIN)/python -m tests.siege --minutes $(or $(MINUTES),10) --database $(or $(DATABASE),sqlite) $(if $(SEED),--seed $(SEED))

check: $(VENV)/.ready-dev ## format, lint, types, layers, unit tests; under a minute
	@$(BIN)/ruff format --check --quiet . || { echo "run 'make format'"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q --numprocesses 4 --dist loadgroup tests/unit $(ARGS)

bench: $(VENV)/.ready-dev ## the figures, as a table and in bench-results.json; PARTS="load leases" for some
	@deploy/bootstrap base postgresql
	@$(SUDO) $(BIN)/python -m tests.bench $(PARTS)

format: $(VENV)/.ready-dev ## put the code into the one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

clean: ## remove the virtual environment and caches; farm data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info build

# The system's packages come first: a fresh Debian has a python3 without venv.
$(VENV)/bin/python:
	@deploy/bootstrap base
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# uv installs what takes pip a minute in a few seconds.
$(VENV)/bin/uv: | $(VENV)/bin/python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/uv
	@echo "installing the farm into $(VENV)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[embedded,pulp]'
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(VENV)/bin/uv
	@echo "installing the farm and its tools into $(VENV)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.ready
