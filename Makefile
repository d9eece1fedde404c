# `make` lists what there is. Commands run the interpreter of .venv as `python -m ...`: a console script
# cannot be trusted where the path of the checkout holds a space.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt
EXTRAS := train,build,ray,dev

.PHONY: help setup demo figures test tools unit wheel clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

setup: .venv/.stamp  ## Make .venv and install everything into it, the versions of constraints.txt

# The stamp is missing until all went well, so an interrupted setup is taken up again.
.venv/.stamp: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "adaptive_split needs Python 3.10 or newer; found no $(PYTHON); name one: make setup PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "adaptive_split needs Python 3.10 or newer; got $$("$(PYTHON)" --version 2>&1); name one: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "[1/3] making .venv"; "$(PYTHON)" -m venv --clear .venv; }
	@echo "[2/3] installing torch into .venv (the largest, some minutes the first time)"
	@$(PIP) torch
	@echo "[3/3] installing adaptive_split[$(EXTRAS)] and what it needs"
	@$(PIP) -e ".[$(EXTRAS)]"
	@touch .venv/.stamp
	@echo "ready: .venv/bin/python -m adaptive_split --help"

demo: setup  ## Run the whole loop on the bundled default, into runs/demo
	@$(PY) -m adaptive_split demo --out runs/demo

# Five minutes of a core in all. They play the recordings if those are at hand (ADAPTIVE_SPLIT_DATA), which
# the stored numbers come from, else the traces that ship.
CHEAP := ddnn aecnn dynamic_split fluid_batching dyno neurosurgeon spinn

figures: setup  ## Draw the figures and tables that are cheap again, and tell what takes long
	@for name in $(CHEAP); do \
	  echo "== $$name"; $(PY) -m experiments.systems.$$name >/dev/null; done
	@echo "== experiments/SYSTEMS.md" && $(PY) -m experiments.systems.table >/dev/null
	@echo "left as they are, since they train, need recordings or take long: the figures of" \
	  "branchynet and sac_d, rate_accuracy, fidelity and link_families; experiments/README.md" \
	  "has the command of each"

test: setup tools unit wheel  ## Check style, types and layers; run the tests; try the wheel on its own

# The parts of `make test`; each expects `make setup` to have run.
tools: setup
	@echo "== ruff" && $(PY) -m ruff check . && $(PY) -m ruff format --check .
	@echo "== mypy" && $(PY) -m mypy
	@echo "== import-linter" && $(PY) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-logo

unit: setup
	@echo "== pytest" && OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup

wheel: setup
	@echo "== wheel" && $(PY) tests/packaging/check_wheel.py

clean:  ## Remove what the commands above made, save runs/
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .coverage
	find adaptive_split experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
