"""A recipe in; what the loop trains out: a network, its loss on (B, 27) labels, its figures."""
