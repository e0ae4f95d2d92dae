# The only entry points; continuous integration calls the same ones.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-lock
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Processes for the tests; each may take 2 GB of memory.
WORKERS ?= 2
WORKDIR ?= runs/demo
# Folder of the authors' numbers.
REFERENCE ?= ../shared/reference

.DEFAULT_GOAL := help
.PHONY: help env demo docs test test-long lint bench verify

help:
	@echo "make demo    build the environment, run the whole pipeline on sample images"
	@echo "             (WORKDIR=$(WORKDIR))"
	@echo "make test    build the environment, run the tests (WORKERS=$(WORKERS))"
	@echo "make test-long  run the tests of several devices and processes, of minutes each"
	@echo "make lint    check style and imports"
	@echo "make bench   time search steps, a network's steps, its inference and input"
	@echo "make docs    write the API reference to build/api/index.html"
	@echo "make verify  compare with the authors' numbers, plant defects, stop a run 20"
	@echo "             times, feed damaged files, and write results/verify.md"
	@echo "             (REFERENCE=$(REFERENCE)); resumable"
	@echo "make env     only build the environment, in $(VENV), from requirements.lock"

env: $(STAMP)

$(STAMP): requirements.lock setup.py
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" || \
	  { echo "Expected Python 3.11. Received: $(PYTHON). Name it: make env PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: env
	$(BIN)/att-darts pipeline --config=demo --workdir=$(WORKDIR)

test: env
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long"

# A fixture of minutes is not made twice: what shares one stays together.
test-long: env
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope -m long

lint: env
	$(BIN)/ruff check .

bench: env
	$(BIN)/python -m benchmarks

docs: env
	$(BIN)/python -m docs.api build/api

verify: env
	$(BIN)/python -m tests.verify $(REFERENCE)
