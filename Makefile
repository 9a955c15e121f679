# Everything here needs Python 3.11 or newer, gcc, make and git; the rest is installed into .venv.
SHELL := /bin/bash
BIN := .venv/bin
SEEDS ?= 100
FROM ?= 1
REQUIRE ?=
STAGES ?=

.PHONY: setup demo test lint types format sim bench docs build coverage system-packages torture clean

setup: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt scripts/setup
	@scripts/setup .venv demo,dev

demo: setup
	@$(BIN)/kvorum demo

test: setup
	@KVORUM_REQUIRE=$(REQUIRE) $(BIN)/python -m scripts.stages $(STAGES)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sim: setup
	@$(BIN)/kvorum simulate --seeds $(SEEDS) --from $(FROM)

bench: setup
	@$(BIN)/python -m benchmarks

docs: setup
	@scripts/setup .venv demo,dev,docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

build: setup
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

coverage: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/unit tests/property tests/scripts
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='src/kvorum/model/*,src/kvorum/protocol/*'

system-packages:
	@scripts/system-packages

torture: setup
	KVORUM_REQUIRE=all KVORUM_HYPOTHESIS_PROFILE=long $(BIN)/python -m scripts.stages
	$(BIN)/kvorum simulate --seeds 20000 --from $(FROM)

clean:
	rm -rf .venv .bootstrap build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
