"""Clips (B, 16, 112, 112, 3) uint8 in; features, then predictions (B, labels) float32 out."""
