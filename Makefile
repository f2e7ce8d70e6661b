# make demo      a video from a sentence and one from a picture, in a real ComfyUI without a window
#                (PROMPT=sentence, IMAGE=file, MOTION=sentence)
# make test      ruff, mypy and the tests, in about 14 minutes on two cores (WORKERS=2: processes of tests, each with a ComfyUI of its own)
# make test-all  everything: also the long tests, and what works with what on the oldest ComfyUI supported
# make test-golden  the core against recordings: GOLDEN=folder with one folder a model, SEED=seed of their weights (unless given
#                tests/data/golden and 11); what no test reads and what is not recorded is listed at the end
# make check     ruff, and mypy's strict check of vc_core
# make coverage  the branches of vc_core that its tests leave untested, listed in docs/coverage.md
# make bench     what the models cost in time and memory, part by part (ARGS="--device cuda --model t2v_512_v2", see --help)
# make gallery   the pictures of docs/gallery and of the help pages, of what the bundled models make
# make comfyui   the same ComfyUI for a browser, on 127.0.0.1 (PORT=8188)
# make clean     removes what these made (.venv, .comfyui, demo_output, benchmarks_output)
#
# Each sets up what it needs first. COMFYUI_DIR=path runs another ComfyUI,
# COMFYUI_RELEASE=0.3.75 another of the releases listed in harness/comfyui.py.

SHELL := bash
PYTHON ?= $(firstword $(foreach p,python3.11 python3 python,$(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 10) or "")' 2>/dev/null),$(p))))
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all test-golden check coverage bench gallery comfyui setup setup-tests clean

demo: setup
	@$(VENV_PYTHON) -m dev.demo

WORKERS ?= 2

test: setup-tests
	@$(VENV_PYTHON) -m dev.run_tests --workers $(WORKERS)

test-all: setup-tests
	@$(VENV_PYTHON) -m dev.run_tests --workers $(WORKERS) --full

GOLDEN := tests/data/golden
SEED := 11

test-golden: $(INSTALLED)
	@GOLDEN="$(GOLDEN)" SEED="$(SEED)" OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest --numprocesses $(WORKERS) -m golden $(wildcard tests/test_golden_*.py)

check: $(INSTALLED)
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m mypy

coverage: $(INSTALLED)
	@$(VENV_PYTHON) -m dev.coverage

bench: $(INSTALLED)
	@$(VENV_PYTHON) -m benchmarks $(ARGS)

gallery: setup
	@$(VENV_PYTHON) -m dev.gallery

comfyui: setup
	@$(VENV_PYTHON) -m dev.serve

setup: $(INSTALLED)
	@$(VENV_PYTHON) -m harness.comfyui

# A few tests run on the oldest release, too.
setup-tests: setup
	@COMFYUI_DIR= COMFYUI_RELEASE=0.3.75 $(VENV_PYTHON) -m harness.comfyui

$(INSTALLED): dev/requirements.txt requirements.txt | $(VENV_PYTHON)
	@echo "Installing torch and the development tools into $(VENV) (about 6 GB on the first run; some minutes) ..."
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check -r dev/requirements.txt
	@touch $@

$(VENV_PYTHON):
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.10 or newer found. Install Python 3.11, or name one: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; fi
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

clean:
	rm -rf $(VENV) .comfyui demo_output benchmarks_output build *.egg-info .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
