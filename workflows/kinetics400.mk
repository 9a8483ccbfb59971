# Kinetics-400: videos in DATA_ROOT/train, lists in DATA_ROOT/annotations. Larger shards, as there
# are some four million clips.

.PHONY: labels-kinetics400
labels-kinetics400: SPLIT ?= train
labels-kinetics400: WORKFLOW_FLAGS += --clips-per-shard 1024
labels-kinetics400:
	$(extract_dataset)
