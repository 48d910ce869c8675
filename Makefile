# Everything runs in .venv, which `setup` makes from a bare Python 3.10 to 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
REFERENCE ?= $(abspath ../shared/reference)

.PHONY: help setup demo fuzz fuzz-native sanitize test test-all test-arm test-parity test-functions check format bench docs clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv with everything installed

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --progress-bar off --quiet -e '.[all,dev,crosscheck]'
	@# Without the system's libGL the desktop build of OpenCV does not load; its
	@# headless build is the same library without windows.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  echo 'libGL is missing: using opencv-python-headless'; \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python; \
	  $(BIN)/python -m pip install --quiet opencv-python-headless; }
	touch $@

demo: setup  ## the main job: convert the shipped checkpoint, run it, measure it
	$(BIN)/deeplab2-edge demo

# A file of tests stays on one core: its tests share what is slow to make. Each core may
# load TensorFlow, so that memory limits how many are used.
ON_ALL_CORES := -n auto --maxprocesses 4 --dist loadfile

test: setup  ## the tests, minutes
	$(BIN)/python -m pytest $(ON_ALL_CORES)

test-all: setup  ## also the slow ones
	$(BIN)/python -m pytest $(ON_ALL_CORES) -m ''

test-arm: setup  ## our wheel in Debian for ARM, emulated: minutes; says what to install
	$(BIN)/python -m tests.arm.userland
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m arm tests/arm

test-parity: setup  ## models against all stored outputs in REFERENCE/models
	DEEPLAB2_EDGE_REFERENCE=$(REFERENCE) $(BIN)/python -m pytest -m '' tests/models/test_parity.py

test-functions: setup  ## everything around the models against REFERENCE/functions
	DEEPLAB2_EDGE_REFERENCE=$(REFERENCE) $(BIN)/python -m pytest -m '' tests/functions

fuzz: setup  ## 10,000 damaged model files of each kind and as many images, 10 minutes
	$(BIN)/python -m tests.fuzz --count 10000 --bare 10000

sanitize: setup  ## the native core under sanitizers of memory, arithmetic and threads
	$(BIN)/python -m pytest -m '' tests/native

fuzz-native: setup  ## hostile arguments to the native core, 10 minutes
	$(BIN)/python -m tests.native --seconds 600

check: setup  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## measure, half an hour, and rewrite the tables; see benchmarks/README.md
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.conversion --limit 200 --output benchmarks/results/conversion_synthetic.json
	$(BIN)/python -m benchmarks.conversion_cost
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.input_pipeline
	$(BIN)/python -m benchmarks.matching
	$(BIN)/python -m benchmarks.attention
	$(BIN)/python -m benchmarks.merging
	$(BIN)/python -m benchmarks.video
	$(BIN)/python -m benchmarks.native
	$(BIN)/python -m benchmarks.models --only-missing --seconds 120
	$(BIN)/python -m benchmarks.tables

docs: setup  ## build the documentation into site/
	$(BIN)/python -m pip install --quiet 'mkdocs>=1.6,<2'
	$(BIN)/mkdocs build --strict

clean:  ## remove what can be made again
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
