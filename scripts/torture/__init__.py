"""Ordeals for the pipeline: see scripts/torture.sh."""
