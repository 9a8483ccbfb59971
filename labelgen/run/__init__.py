"""Rows of videos in, sealed shards out: who does which shard when, and what if one dies."""
