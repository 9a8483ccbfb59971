"""Trained weights and sealed shards in; features (N, D) float32, then figures and their floors."""
