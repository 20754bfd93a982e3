# `make run` and `make test` work in a fresh clone with Python 3.11 to 3.13 and pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One process per core; tests of one file share what they set up (tests/conftest.py).
WORKERS := --numprocesses auto --dist loadgroup
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: run test slow gpu transformers lint types imports

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

# What depends on transformers, on the oldest and the newest release that pyproject.toml admits. Each has an environment
# of its own in front of $(VENV), which lends it torch and all else that the release does not want otherwise.
transformers: $(VENV)/.transformers-oldest/.installed $(VENV)/.transformers-newest/.installed
	for release in $(^D); do \
		$$release/bin/python -c 'import transformers; print("transformers", transformers.__version__)' && \
		$$release/bin/python -m pytest $(WORKERS) -m 'transformers and not slow and not gpu' || exit 1; \
	done

$(VENV)/.transformers-%/.installed: pyproject.toml $(VENV)/.installed-dev
	rm -rf $(@D)
	$(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/python tests/releases_of_transformers.py $(@D) $*
	touch $@

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
