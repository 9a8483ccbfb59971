"""Rows and settings in, a folder of sealed HDF5 shards out, and what may be said of it."""
