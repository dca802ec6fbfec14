"""Metrics: distribution, text alignment, the scenes reader, cost."""
