"""python -P FOLDER SOCKET PROCESS: the server, alone, without the package around this folder."""

import importlib.util
import sys
from pathlib import Path

NAME = "distillery_warm"


def load_alone() -> None:
    """Make this folder a package by itself: forks find the one around it where their clients do."""
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    load_alone()
    from distillery_warm.server import main

    main()
