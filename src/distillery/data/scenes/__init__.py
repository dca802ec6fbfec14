"""Procedural scenes with known contents, and planted defects."""
