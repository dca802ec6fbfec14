"""Registers the Kronecker adapter with PEFT as soon as PEFT is imported, without importing it.

In: a call of `install()`. Out: `PeftModel.from_pretrained` knows saved Kronecker adapters,
whichever of PEFT and this package is imported first. Imports neither torch nor PEFT by itself.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

__computes__ = False  # who uses the method names it

METHOD = "distillery.models.kronecker"


class _AfterPeft(MetaPathFinder):
    """Finds nothing itself; has `METHOD` imported after the first import of `peft`."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name != "peft":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module) -> None:
                execute(module)
                importlib.import_module(METHOD)

            spec.loader.exec_module = execute_and_register
        return spec


def install() -> None:
    """Register now if PEFT is imported, else when it is."""
    if "peft" in sys.modules:
        importlib.import_module(METHOD)
    elif not any(isinstance(finder, _AfterPeft) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterPeft())
