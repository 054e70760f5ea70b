# make demo | test | test-models | lint | bench | bench-plots | proto | hooks     Each sets up what it needs in .venv, from a fresh clone.
PYTHON3 ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
KERNELS := $(wildcard mpcnode/kernels/*.c mpcnode/kernels/*.h) mpcnode/kernels/_build.py

.PHONY: demo test test-models lint bench bench-plots proto hooks clean

$(INSTALLED): pyproject.toml setup.py $(KERNELS)
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "this needs Python 3.11 or later; name one with make PYTHON3=/path/to/python3.11")'
	@echo "installing into $(VENV) ..."
	@test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[train,dev]'
	@touch $@

demo: $(INSTALLED)
	@$(PYTHON) examples/demo.py breast_cancer

test: lint
	$(PYTHON) -m pytest

# PyTorch's and ONNX's models.  Of PyTorch this takes gigabytes, unless the index has a build for CPUs.
TORCH ?= torch==2.13.0
test-models: $(INSTALLED)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check '$(TORCH)' --editable '.[train,dev,torch,onnx]'
	$(PYTHON) -m pytest tests/unit/test_torch.py tests/unit/test_torch_layers.py tests/unit/test_onnx.py tests/unit/test_onnx_nodes.py tests/e2e/test_examples.py

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	PYTHON=$(PYTHON) sh proto/check.sh

bench: $(INSTALLED)
	$(PYTHON) benchmarks/run.py
	$(PYTHON) benchmarks/tables.py

bench-plots: $(INSTALLED)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(PYTHON) benchmarks/sweep.py
	$(PYTHON) benchmarks/plots.py
	$(PYTHON) benchmarks/tables.py

proto: $(INSTALLED)
	PYTHON=$(PYTHON) sh proto/generate.sh

hooks: $(INSTALLED)
	$(VENV)/bin/pre-commit install

clean:
	rm -rf $(VENV) .demo .bench build *.egg-info mpcnode/kernels/*.so mpcnode/kernels/_native.c
