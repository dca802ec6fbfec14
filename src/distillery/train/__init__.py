"""One training loop, its state, losses and objectives."""
