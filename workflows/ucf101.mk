# UCF101: unpack UCF101.rar (folder UCF-101) and the official lists (folder ucfTrainTestlist) into
# DATA_ROOT. The paper pre-trains on the first training split.

.PHONY: labels-ucf101
labels-ucf101: SPLIT ?= train1
labels-ucf101:
	$(extract_dataset)
