"""The public name of student ControlNets."""

from distillery.models.controlnet.student import PRESETS, StudentControlNet, build_student

__all__ = ["PRESETS", "StudentControlNet", "build_student"]
