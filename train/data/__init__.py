"""Sealed shards in; samples out, (16, 112, 112, 3) uint8 and 27 labels, in a drawn order."""
