# YUPENN: the 14 classes of dynamic scenes, a folder each, in DATA_ROOT/YUPENN or DATA_ROOT. Its
# experiment needs no labels, and clips that overlap by half.

.PHONY: labels-yupenn
labels-yupenn: WORKFLOW_FLAGS += --no-labels --clip-stride 8
labels-yupenn:
	$(extract_dataset)
