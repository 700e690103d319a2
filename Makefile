# Each target does everything on a machine that has Python >= 3.11 and make; the second time it is quick.
#   make demo TEXT="..."     also complete a sentence of your own
#   make test JOBS=8         tests in eight processes (two by default)
#   make test PYTHON=python3.12   the interpreter that .venv is made with
#   make bench BENCH_ARGS=--quick   a tiny model, in a minute
#   make test-floor FLOOR_PYTHON=python3.11   the same for .venv-floor, at most Python 3.12

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
PEER_ARGS ?=
BENCH_ARGS ?=
INSTALL_INPUTS := setup.cfg pyproject.toml constraints.txt
FLOOR_VENV := .venv-floor
FLOOR_BIN := $(FLOOR_VENV)/bin
FLOOR_PYTHON ?= $(PYTHON)
FLOOR_INPUTS := setup.cfg pyproject.toml constraints-floor.txt
EXCHANGE := outputs/exchange

# One thread for each test process, or the processes crowd each other out.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

export TEXT

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format bench test-peer test-floor

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.installed ## compose, train, compare, save and reload a small TALL, offline, in minutes
	$(BIN)/tall demo $${TEXT:+--text "$$TEXT"}

test: $(VENV)/.installed-dev ## run the tests that take seconds
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

test-all: $(VENV)/.installed-dev ## run every test, those that take minutes too
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow" $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## repair what lint can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## measure speed and memory beside the authors' procedure, in a quarter of an hour
	$(BIN)/python -m benchmarks.speed $(BENCH_ARGS)

test-peer: $(VENV)/.installed-dev ## run transformers' own common tests on our classes
	$(TEST_ENV) $(BIN)/python tests/peer/run.py -n $(JOBS) $(PEER_ARGS)

test-floor: $(FLOOR_VENV)/.installed $(VENV)/.installed-dev ## run the tests at the lowest supported versions, and read each other's checkpoints
	$(TEST_ENV) $(FLOOR_BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)
	rm -rf $(EXCHANGE)
	$(TEST_ENV) $(FLOOR_BIN)/python tests/golden/checkpoints.py write $(EXCHANGE)/floor
	$(TEST_ENV) $(BIN)/python tests/golden/checkpoints.py write $(EXCHANGE)/newest
	$(TEST_ENV) $(BIN)/python tests/golden/checkpoints.py check --exact $(EXCHANGE)/floor
	$(TEST_ENV) $(FLOOR_BIN)/python tests/golden/checkpoints.py check --exact $(EXCHANGE)/newest

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tall-hf needs Python >= 3.11; '$(PYTHON)' is older or missing. Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu install python3-venv first."; exit 1; }

$(VENV)/.installed: $(INSTALL_INPUTS) | $(BIN)/python
	@echo "Installing into $(VENV) (minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(INSTALL_INPUTS) | $(BIN)/python
	@echo "Installing into $(VENV) (minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/.installed

# The lowest numpy has no wheel for later interpreters.
$(FLOOR_BIN)/python:
	@$(FLOOR_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "The lowest versions need Python 3.11 or 3.12, and '$(FLOOR_PYTHON)' is another: make test-floor FLOOR_PYTHON=python3.12"; exit 1; }
	@$(FLOOR_PYTHON) -m venv $(FLOOR_VENV) || \
		{ rm -rf $(FLOOR_VENV); echo "'$(FLOOR_PYTHON) -m venv' failed; on Debian and Ubuntu install python3-venv first."; exit 1; }

$(FLOOR_VENV)/.installed: $(FLOOR_INPUTS) | $(FLOOR_BIN)/python
	@echo "Installing into $(FLOOR_VENV) (minutes the first time) ..."
	@$(FLOOR_BIN)/python -m pip install --quiet --constraint constraints-floor.txt --editable ".[dev]"
	@touch $@
