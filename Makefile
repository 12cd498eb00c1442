# Every target makes .venv and installs what it needs, once: a stamp file remembers, and a changed
# pyproject.toml installs again. `make PYTHON=python3.12 test` makes it with another interpreter; one
# that is there stays as it is, so remove it first: rm -r .venv*

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev
DOCS_STAMP := $(VENV)/.installed-docs
# A second environment without torch, to show that the onnx extra is enough.
ONNX_VENV := .venv-onnx
ONNX_STAMP := $(ONNX_VENV)/.installed
# A third one to read Triton's configuration: its client wants an older protobuf than onnx does.
TRITON_VENV := .venv-triton
TRITON_STAMP := $(TRITON_VENV)/.installed
# A fourth one for the example of a Space: gradio wants an older Pillow.
SPACE_VENV := .venv-space
SPACE_STAMP := $(SPACE_VENV)/.installed

# An environment that is made by half, as where ensurepip is missing, goes again.
make_venv = test -x $(1)/bin/python || $(2) -m venv $(1) || { rm -rf $(1); exit 1; }

.DEFAULT_GOAL := help
.PHONY: help demo space test check docs fix fuzz

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(DEMO_STAMP) ## Embed real photos with the shipped weights, write demo.png
	$(BIN)/python examples/demo.py

# Two workers with one torch thread each: faster on a small machine than one worker with two.
test: $(DEV_STAMP) $(ONNX_STAMP) $(TRITON_STAMP) $(SPACE_STAMP) ## Run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(DEV_STAMP) ## Lint, check formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A link or an anchor that leads nowhere, a type without a page, a notebook that fails: all are errors.
docs: $(DOCS_STAMP) ## Build the site: docs/_build/html/index.html
	$(BIN)/python -m sphinx -b html -d docs/_build/doctrees -W --keep-going -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"

fix: $(DEV_STAMP) ## Repair what lint and formatting can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "clever-hub needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.11"; exit 1; }
	$(call make_venv,$(VENV),$(PYTHON))

# The interpreter is order-only: its time stamp is the system's and says nothing about this venv.
$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(DEMO_STAMP) $@

$(DOCS_STAMP): $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(ONNX_STAMP): pyproject.toml | $(BIN)/python
	$(call make_venv,$(ONNX_VENV),$(BIN)/python)
	$(ONNX_VENV)/bin/python -m pip install --quiet --editable '.[onnx]'
	@touch $@

$(TRITON_STAMP): | $(BIN)/python
	$(call make_venv,$(TRITON_VENV),$(BIN)/python)
	$(TRITON_VENV)/bin/python -m pip install --quiet 'tritonclient[grpc]>=2.50'
	@touch $@

space: $(SPACE_STAMP) ## Open the example of a Space: drop two photos, turn one
	$(SPACE_VENV)/bin/python examples/space/app.py

$(SPACE_STAMP): pyproject.toml examples/space/requirements.txt | $(BIN)/python
	$(call make_venv,$(SPACE_VENV),$(BIN)/python)
	$(SPACE_VENV)/bin/python -m pip install --quiet 'gradio>=6,<7' --editable '.[onnx]'
	@touch $@

# What fails is kept in fuzz/, by kind, seed and number; another FUZZ_SEED tries other files.
FUZZ_SECONDS ?= 3600
FUZZ_SEED ?= 1
fuzz: $(DEV_STAMP) ## Damage files for an hour of each kind: make fuzz FUZZ_SECONDS=600 FUZZ_SEED=2
	@mkdir -p fuzz
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) FUZZ_KEEP=fuzz $(BIN)/python -m pytest -n 2 tests/fuzz
