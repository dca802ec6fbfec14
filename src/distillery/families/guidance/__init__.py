"""Guidance in one evaluation."""
