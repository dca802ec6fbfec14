"""Latency tables: what every layer of an architecture costs in each form, measured or predicted."""
