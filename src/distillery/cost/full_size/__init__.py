"""Rows of the papers' tables at their own size."""
