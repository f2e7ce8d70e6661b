# make demo      a video from a sentence and one from a picture, in a real ComfyUI without a window
#                (PROMPT=sentence, IMAGE=file, MOTION=sentence)
# make test      ruff, mypy and all tests, then test-oldest (WORKERS=2: so many tests at a time, each worker with a ComfyUI of its own)
# make test-oldest  what works with what, once more on the oldest ComfyUI supported
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

.PHONY: demo test test-oldest test-golden check coverage bench gallery comfyui setup clean

demo: setup
	@$(VENV_PYTHON) -m dev.demo

# Tests of one file stay together, for what they share. Torch's threads are divided among the workers: more of them than cores only wait.
WORKERS ?= 2
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PYTEST = OMP_NUM_THREADS=$$(( ($(CORES) + $(WORKERS) - 1) / $(WORKERS) )) $(VENV_PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadfile

test: setup check
	@$(PYTEST)
	@$(MAKE) --no-print-directory test-oldest

# What differs from release to release is ComfyUI's side, so the oldest one gets the tests of what works with what.
OLDEST := 0.3.75
ON_OLDEST := $(addprefix tests/comfyui/,test_works_with.py test_controlnet.py test_model_patches.py test_memory.py)

test-oldest: setup
	@COMFYUI_DIR= COMFYUI_RELEASE=$(OLDEST) $(VENV_PYTHON) -m harness.comfyui
	@COMFYUI_DIR= COMFYUI_RELEASE=$(OLDEST) $(PYTEST) $(ON_OLDEST)

GOLDEN := tests/data/golden
SEED := 11

test-golden: $(INSTALLED)
	@GOLDEN="$(GOLDEN)" SEED="$(SEED)" $(PYTEST) -m golden $(wildcard tests/test_golden_*.py)

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
