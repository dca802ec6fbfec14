"""Convolutions whose weight is a product of Hadamard factors."""

from distillery.models.hadamard.conv import HadamardConv2d

__all__ = ["HadamardConv2d"]
