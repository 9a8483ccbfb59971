# ASLAN: unpack ASLAN_AVI.zip (or ASLAN_MP4.zip) and put View2.mat beside it, both in DATA_ROOT. Its
# experiment needs no labels, and clips that overlap by half.

.PHONY: labels-aslan
labels-aslan: SPLIT ?= view2
labels-aslan: WORKFLOW_FLAGS += --no-labels --clip-stride 8
labels-aslan: $(VENV)/.train
	$(extract_dataset)
