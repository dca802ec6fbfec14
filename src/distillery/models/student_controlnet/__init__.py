"""Small ControlNets: architectures, and their start from a teacher's.

The folder is not called `controlnet`: diffusers takes a model whose folder is named like one of its
pipelines for a part of itself, and a saved pipeline would not load.
"""

from distillery.models.student_controlnet.model import StudentControlNet, build_student
from distillery.models.student_controlnet.presets import PRESETS

__all__ = ["PRESETS", "StudentControlNet", "build_student"]
