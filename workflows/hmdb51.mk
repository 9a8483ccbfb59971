# HMDB51: unpack each class of hmdb51_org.rar into hmdb51_org/CLASS and the official lists into
# testTrainMulti_7030_splits, both below DATA_ROOT.

.PHONY: labels-hmdb51
labels-hmdb51: SPLIT ?= train1
labels-hmdb51:
	$(extract_dataset)
