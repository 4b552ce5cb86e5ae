# Every target works on a fresh clone with only make and Python 3.11 to 3.13: it makes its own .venv first.
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := .venv-torch
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

RUN      := runs/dates
ARTEFACT := artefacts/dates
DATE     := Sunday, 22 Nov. 2026

COMMAND = $(BIN)/keras-attention $(1)

# make test-backends BACKENDS="jax torch"
BACKENDS := tensorflow jax torch

.PHONY: help venv demo test test-all test-slow coverage mutants
.PHONY: test-backends test-tensorflow test-jax test-torch check format

help:
	@echo "make demo     train a small translator of dates, evaluate, export to three formats, verify, draw its attention"
	@echo "make test     run the tests that a change is likely to break (TESTS=\"tests/search/test_search.py\" selects)"
	@echo "make test-all run all tests"
	@echo "make test-slow       run what make test leaves out (SHARE=0/4: one of four shares)"
	@echo "make test-backends   run the library's tests on TensorFlow, JAX and PyTorch (BACKENDS=\"jax torch\" selects)"
	@echo "make mutants  plant bugs, one at a time, and see which tests notice them (at most an hour; resumes)"
	@echo "make coverage lines and branches that the tests run"
	@echo "make check    format, lint and type-check, changing nothing"
	@echo "make format   format and mend what lint can mend"
	@echo "make venv     only the environment, in $(VENV)"

venv: $(READY)

# install VENV, LOCK FILE: only the first installation is worth watching.
define install
	@if ! $(1)/bin/python -c 'import pip; $(IN_RANGE)' 2>/dev/null; then \
	    found=; \
	    for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	        if $$python -c '$(IN_RANGE)' 2>/dev/null; then found=$$python; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "error: no Python 3.11, 3.12 or 3.13 found (python3: $$(python3 --version 2>/dev/null || echo "not there"))." >&2; \
	        echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(or $(MAKECMDGOALS),venv)" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making $(1) with $$($$found --version)"; \
	    $$found -m venv --clear $(1); \
	fi
	@echo "Installing the locked requirements into $(1) (once; a few minutes)"
	@$(1)/bin/python -m pip install --disable-pip-version-check $(if $(wildcard $(1)/.ready),--quiet) -r $(2)
	@$(1)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $(1)/.ready
endef

# Done again when the lock file or the package's metadata change.
$(READY): requirements.lock pyproject.toml
	$(call install,$(VENV),requirements.lock)

# PyTorch has an environment of its own: it is large, and nothing but the tests of its backend needs it. On Linux its
# wheel from the public index brings its CUDA libraries along, which the lock does not list: they follow from its version.
$(TORCH)/.ready: requirements-torch.lock pyproject.toml
	$(call install,$(TORCH),requirements-torch.lock)

demo: $(READY)
	@echo "== train: human-written dates to ISO 8601"
	@$(call COMMAND,train --recipe dates --output $(RUN))
	@printf "\n== evaluate: dates that it never saw\n"
	@$(call COMMAND,evaluate $(RUN) --source $(RUN)/test.source.txt --target $(RUN)/test.target.txt)
	@printf "\n== export, each artefact compared with Keras\n"
	@$(call COMMAND,export $(RUN) --to saved_model tflite onnx --output $(ARTEFACT) --overwrite)
	@printf "\n== verify what lies in $(ARTEFACT)\n"
	@$(call COMMAND,verify $(ARTEFACT))
	@printf "\n== attention of one date\n"
	@$(call COMMAND,attention $(RUN) "$(DATE)" --output $(RUN)/plots/attention.png)
	@printf "\n== now yours: echo \"3rd of May 1999\" | $(BIN)/keras-attention translate $(RUN)\n"

# Tests of one file share fixtures and stay together; the dearest files begin first (tests/conftest.py).
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder
TESTS  := tests

test: $(READY)
	$(BIN)/python $(PYTEST) -m "not slow" $(TESTS)

test-all: $(READY)
	$(BIN)/python $(PYTEST) $(TESTS)

# make test-slow SHARE=0/4: one of four shares of what `make test` leaves out
test-slow: $(READY)
	$(BIN)/python $(PYTEST) -m slow $(if $(SHARE),--share $(SHARE)) $(TESTS)

# Every line and branch that the whole suite runs, child processes left out: htmlcov/index.html.
coverage: $(READY)
	$(BIN)/python $(PYTEST) --cov --cov-report=term --cov-report=html $(TESTS)

# Plant one bug at a time and see which tests notice it; goes on where it stopped.
mutants: $(READY)
	$(BIN)/python -m tests.mutants $(MUTANTS)

# PyTorch's environment comes first: the tests on the other backends then exchange models with it.
test-backends: $(if $(filter torch,$(BACKENDS)),$(TORCH)/.ready) $(BACKENDS:%=test-%)

test-tensorflow test-jax: $(READY)
	KERAS_BACKEND=$(@:test-%=%) $(BIN)/python $(PYTEST) --library $(if $(FAST),-m "not slow") $(TESTS)

test-torch: $(TORCH)/.ready
	KERAS_BACKEND=torch $(TORCH)/bin/python $(PYTEST) --library $(if $(FAST),-m "not slow") $(TESTS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
