# What a person does here: `make run`, `make test`. `make help` lists the rest.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install run test check bench bench-cluster faults lock clean

help:  ## List what make can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## Set up .venv from requirements.lock

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed; choose one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install  ## Run everything until Ctrl-C (FEED=simulated, coinbase, binance or recording:PATH; PROFILE=cluster)
	@$(if $(PROFILE),LAKEHOUSE_PROFILE="$(PROFILE)") $(BIN)/lakehouse up $(if $(FEED),--feed "$(FEED)")

test: install  ## Run the tests (those of the cluster where Java, Maven and PostgreSQL are installed)
	$(BIN)/python -m pytest -n 2

check: install  ## Check format, lint, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## Measure speed as ratios to limits measured in the same run
	$(BIN)/python -m benchmarks

bench-cluster: install  ## The same for the cluster profile (Iggy where LAKEHOUSE_TEST_IGGY_BINARY names its server)
	$(BIN)/python -m benchmarks cluster

faults: install  ## The long campaigns: kills, faults, mutated frames (seeded; SEED=…)
	$(BIN)/python -m pytest tests/faults tests/cluster --full -q $(if $(SEED),--seed=$(SEED))

lock:  ## Pin the dependencies anew, with hashes
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --extra dev --upgrade pyproject.toml -o requirements.lock

clean:  ## Remove .venv and caches (the data under .lakehouse stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
