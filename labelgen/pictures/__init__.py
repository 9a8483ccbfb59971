"""A clip, (16, 128, 171, 3) uint8, and 27 labels, or a shard folder -> what a person looks at."""
