# Any folder of videos: make labels DATASET=folder DATA_ROOT=/path/to/videos

.PHONY: labels-folder
labels-folder:
	$(extract_dataset)
