"""The one training loop, its state and settings, and a variant trained once for every seed."""
