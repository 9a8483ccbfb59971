"""Frames (16, 128, 171, 3) uint8 in, optical flow (15, 2, 128, 171) float32 out, in pixels."""
