"""Distil Stable Diffusion and its ControlNets into smaller students, and measure the gain."""

__version__ = "0.1.0"
