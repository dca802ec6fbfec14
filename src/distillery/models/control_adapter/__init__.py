"""The control adapter: one encoder for several kinds of condition maps."""

from distillery.models.control_adapter.adapter import ControlAdapter

__all__ = ["ControlAdapter"]
