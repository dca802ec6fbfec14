"""The public name of the control adapter."""

from distillery.models.adapter.adapter import ControlAdapter

__all__ = ["ControlAdapter"]
