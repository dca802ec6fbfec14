"""Condition maps: making, storing and reading them."""
