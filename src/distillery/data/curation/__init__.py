"""Filters, and what they keep."""
