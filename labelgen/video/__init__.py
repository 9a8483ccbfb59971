"""Rows of videos, and of each video its frames, 128x171 RGB uint8, in windows of 16."""
