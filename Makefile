# Motion and appearance labels: `make help` lists what can be made.

PYTHON    ?= python3
VENV      := .venv
BIN       := $(VENV)/bin
PIP       := $(BIN)/pip install --quiet --constraint constraints.txt

# A root that was named is held against the one that OUT was made of.
NAMED     := $(DATA_ROOT)
# Whose videos are named is not asking for the demo's.
ifndef DATASET
DATASET   := $(if $(DATA_ROOT),folder,demo)
endif
# One's own folders are told apart by their names; . and .. have them, too.
NAME      := $(if $(and $(DATA_ROOT),$(filter folder,$(DATASET))),$(shell basename -- "$$(cd "$(DATA_ROOT)" 2>/dev/null && pwd || echo "$(DATA_ROOT)")" | tr -c 'A-Za-z0-9._\n-' '_' | sed 's/^\./_/'),$(DATASET))
override DATA_ROOT := $(or $(DATA_ROOT),data/$(DATASET))
OUT       ?= shards/$(NAME)
MANIFEST  ?= manifests/$(NAME).csv
RUN       ?= runs/$(NAME)
WORKERS   ?=
FLAGS     ?=
BENCH_DATA ?= $(or $(and $(LABELGEN_SHARED),$(wildcard $(LABELGEN_SHARED)/data)),$(wildcard ../shared/data),data/demo)

.DEFAULT_GOAL := help
.PHONY: help labels pretrain demo test lint bench docs-check kills cluster fuzz clean

help:  ## list the targets
	@echo "make TARGET [NAME=VALUE ...]"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "DATASET=$(DATASET)  DATA_ROOT=$(DATA_ROOT)  OUT=$(OUT)  RUN=$(RUN)  WORKERS=$(or $(WORKERS),one per core)"
	@echo "SPLIT='train1 test1' chooses splits of a dataset with official lists; LISTS names their folder;"
	@echo "STRICT=1 stops where not all videos are there"
	@echo "FLAGS go to labelgen extract, for example FLAGS='--crops center --no-boundaries' or FLAGS=--add"
	@echo "TRAIN_FLAGS go to train pretrain, for example TRAIN_FLAGS='--epochs 5 --workers 8'"

labels: labels-$(DATASET)  ## extract DATASET (demo, folder, ucf101, hmdb51, kinetics400, aslan, yupenn) into OUT

labels-$(DATASET): $(VENV)/.labelgen

TABLES_MK := workflows/paper_tables.mk
WORKFLOWS := $(filter-out $(TABLES_MK),$(sort $(wildcard workflows/*.mk)))
ifeq ($(filter workflows/$(DATASET).mk,$(WORKFLOWS)),)
$(error unknown DATASET=$(DATASET); there are $(basename $(notdir $(WORKFLOWS))))
endif
include $(WORKFLOWS) $(TABLES_MK)

# One recipe for every dataset; a workflow sets SPLIT and WORKFLOW_FLAGS where it needs them.
define extract_dataset
$(BIN)/python workflows/root.py "$(OUT)" "$(DATA_ROOT)"
$(BIN)/labelgen manifest $(DATASET) --root "$(DATA_ROOT)" $(addprefix --split ,$(SPLIT)) \
    $(if $(LISTS),--splits "$(LISTS)") $(if $(STRICT),--strict) -o "$(MANIFEST)"
$(BIN)/labelgen extract --manifest "$(MANIFEST)" --root "$(DATA_ROOT)" --out "$(OUT)" \
    $(addprefix --workers ,$(WORKERS)) $(WORKFLOW_FLAGS) $(FLAGS)
$(BIN)/labelgen verify "$(OUT)"
endef

# The demo videos are fewer than few: a smaller width, rate and batch, one video in five held out.
SMALL_DEMO := --recipe small --width 0.25 --lr 0.003 --batch 4 --val 0.2
RECIPE     ?= $(if $(filter kinetics400,$(DATASET)),kinetics,ucf101)
PRETRAIN    = $(if $(filter demo,$(DATASET)),$(SMALL_DEMO) --epochs 8,--recipe $(RECIPE))
# Shards that are there are not extracted and verified again.
MADE        = $(if $(shell test -e "$(OUT)/run.json" && echo made),,labels-$(DATASET))

pretrain: $(MADE) $(VENV)/.train  ## pre-train C3D on the shards of DATASET; of the demo, in a few CPU minutes
	$(if $(NAMED),$(BIN)/python workflows/root.py "$(OUT)" "$(DATA_ROOT)")
	$(BIN)/train pretrain --labels "$(OUT)" --out "$(RUN)" $(PRETRAIN) $(TRAIN_FLAGS)

demo: labels-demo $(VENV)/.train  ## labels, a short pretrain, and its curve as a picture
	$(BIN)/train pretrain --labels shards/demo --out runs/demo-short $(SMALL_DEMO) --epochs 3
	$(BIN)/train curve runs/demo-short -o runs/demo-short/curve.png

test: $(VENV)/.test  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST_FLAGS)

lint: $(VENV)/.test  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test $(patsubst %,%/.complete,$(filter data/demo,$(BENCH_DATA)))  ## time labels, flow and the whole pipeline against baselines
	$(BIN)/python benchmarks/labels.py
	$(BIN)/python benchmarks/flow.py --data $(BENCH_DATA)
	$(BIN)/python benchmarks/extraction.py $(firstword $(wildcard $(BENCH_DATA)/ucf101) $(BENCH_DATA))
	$(BIN)/python benchmarks/pipeline.py $(BENCH_DATA)

kills: $(VENV)/.test  ## kill extractions at 50 random moments and compare what reruns make, minutes
	$(BIN)/python tests/run/kills.py --rounds 50

docs-check: $(VENV)/.test  ## run what the documentation shows, on the demo set in a fresh clone, minutes
	$(BIN)/python -m pytest -m docs tests/test_docs.py

cluster: $(VENV)/.cluster  ## test extractions on a local Dask cluster, a minute or two
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/run tests/test_workflows.py

fuzz: $(VENV)/.test  ## feed damaged files to all commands for SECONDS=600, and see that they say so
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --seconds $(or $(SECONDS),600) $(addprefix --seed ,$(SEED))

clean:  ## remove the environment and caches; data, manifests and shards stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.labelgen: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --editable .
	@touch $@

$(VENV)/.train: $(VENV)/.labelgen
	$(PIP) --editable '.[train,evaluate,export,pictures]'
	@touch $@

$(VENV)/.test: $(VENV)/.train
	$(PIP) --editable '.[train,evaluate,tensorboard,export,pictures,test,lint]'
	@touch $@

$(VENV)/.cluster: $(VENV)/.test
	$(PIP) --editable '.[dask]'
	@touch $@
