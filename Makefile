# `make run` and `make test` work in a fresh clone with Python 3.11 to 3.13 and pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One process per core; tests of one file share what they set up.
WORKERS := --numprocesses auto --dist loadfile
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: run test slow gpu lint types imports

run: $(VENV)/.installed
	$(BIN)/bench run --model pmnet --task copy-paste

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(WORKERS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(WORKERS) -m slow

# All that needs a CUDA device, in one report: tests, every path of every operation, and the models side by side.
gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu -ra --durations=10
	$(BIN)/bench speed --kernels --device cuda --output runs/speed/gpu-kernels
	$(BIN)/bench speed --models pmnet@reference,pmnet,transformer,sliding-window,mamba,mamba2 --preset 119m \
		--precision bf16 --device cuda --lengths 1k,4k,16k,64k --modes train,prefill,decode --output runs/speed/gpu-models

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + "; type make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# torch first: with it in place nothing later pulls another build of it.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(INSTALL) torch
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.torch
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.installed
