# Motion and appearance labels: `make help` lists what can be made.

PYTHON    ?= python3
VENV      := .venv
BIN       := $(VENV)/bin
PIP       := $(BIN)/pip install --quiet --constraint constraints.txt

DATASET   ?= demo
DATA_ROOT ?= data/$(DATASET)
OUT       ?= shards/$(DATASET)
MANIFEST  ?= manifests/$(DATASET).csv
WORKERS   ?=
FLAGS     ?=

.DEFAULT_GOAL := help
.PHONY: help labels test lint bench clean

help:  ## list the targets
	@echo "make TARGET [NAME=VALUE ...]"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "DATASET=$(DATASET)  DATA_ROOT=$(DATA_ROOT)  OUT=$(OUT)  WORKERS=$(or $(WORKERS),one per core)"
	@echo "FLAGS go to labelgen extract, for example FLAGS='--crops center --no-boundaries'"

labels: labels-$(DATASET)  ## extract DATASET (demo, folder, ucf101, hmdb51, kinetics400) into OUT

labels-$(DATASET): $(VENV)/.labelgen

WORKFLOWS := $(sort $(wildcard workflows/*.mk))
ifeq ($(filter workflows/$(DATASET).mk,$(WORKFLOWS)),)
$(error unknown DATASET=$(DATASET); there are $(basename $(notdir $(WORKFLOWS))))
endif
include $(WORKFLOWS)

# One recipe for every dataset; a workflow sets SPLIT and WORKFLOW_FLAGS where it needs them.
define extract_dataset
$(BIN)/labelgen manifest $(DATASET) --root "$(DATA_ROOT)" $(addprefix --split ,$(SPLIT)) -o "$(MANIFEST)"
$(BIN)/labelgen extract --manifest "$(MANIFEST)" --root "$(DATA_ROOT)" --out "$(OUT)" \
    $(addprefix --workers ,$(WORKERS)) $(WORKFLOW_FLAGS) $(FLAGS)
$(BIN)/labelgen verify "$(OUT)"
endef

test: $(VENV)/.test  ## run the tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.test  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test  ## time labels, flow and the whole pipeline against baselines
	$(BIN)/python benchmarks/labels.py

clean:  ## remove the environment and caches; data, manifests and shards stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.labelgen: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --editable .
	@touch $@

$(VENV)/.train: $(VENV)/.labelgen
	$(PIP) --editable '.[train,plot]'
	@touch $@

$(VENV)/.test: $(VENV)/.train
	$(PIP) --editable '.[train,plot,tensorboard,export,test,lint]'
	@touch $@
