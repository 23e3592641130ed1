# Everything runs inside .venv. `demo` installs what running needs, the others also the tools for developing; each
# installs again only when pyproject.toml or constraints.txt has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.installed
TOOLS := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup tools demo demo-choose test test-peft test-eval test-ray test-export test-legacy lint format docs clean

setup: $(RUNS)
tools: $(TOOLS)

$(RUNS): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): PyTorch and what it needs (some minutes, 1.8 GB) ..."
	$(PIP) torch==2.13.0
	$(PIP) -e .
	touch $@

$(TOOLS): $(RUNS)
	$(PIP) -e '.[dev]'
	touch $@

# One thread: so small a model gains nothing by two, and loses much where another program wants a core.
demo: setup
	OMP_NUM_THREADS=1 $(BIN)/compose demo

# From wishes to a family of small models, on the same model and corpus.
demo-choose: setup
	OMP_NUM_THREADS=1 $(BIN)/compose run composer/demo/wishes.yaml

test: tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-eval: tools
	$(PIP) -e '.[dev,eval]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/evaluation/suites

test-ray: tools
	$(PIP) -e '.[dev,ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integration/test_ray.py

test-export: tools
	$(PIP) -e '.[dev,onnx,openvino,translate,gguf]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/exporting

test-peft: tools
	$(PIP) -e '.[dev,peft]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/steps/test_merge.py tests/steps/test_tune_folder.py

test-legacy:
	$(MAKE) -C legacy-seq2seq test

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: tools
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_flow.py

clean:
	rm -rf $(VENV) demo-run demo-family .pytest_cache .mypy_cache .ruff_cache
