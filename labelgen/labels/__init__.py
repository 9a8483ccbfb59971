"""Frames (16, 128, 171, 3) and flow (15, 2, 128, 171) in, 27 numbers of each crop out."""
