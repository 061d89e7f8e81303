# make demo: sets up and runs a real search.   make test: sets up and passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNTIMES := $(VENV)/.runtimes

.PHONY: demo test lint check bench clean

demo: $(READY)
	$(BIN)/parefront launch examples/mnist_cnn.toml

test: $(RUNTIMES)
	$(BIN)/python -m pytest

lint: $(RUNTIMES)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

bench: $(READY)
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.timing
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.rungs
	$(BIN)/python -m benchmarks.nasbench --synthetic --no-gp
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.techniques
	$(BIN)/python -m benchmarks.joint
	$(BIN)/python -m benchmarks.scale

# The lock names every package at one version, so nothing is resolved, and torch comes as pinned.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(READY)

# OpenVINO, ExecuTorch and LiteRT, which a demo does not need and the tests do.
$(RUNTIMES): requirements-runtimes.lock $(READY)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-runtimes.lock
	touch $(RUNTIMES)

clean:
	rm -rf $(VENV) .parefront build *.egg-info
