"""Metrics, one file each, their catalogue, and the one pass that streams images through them."""
