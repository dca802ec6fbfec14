"""Versions of the libraries that code imports.

In: names as they are imported (`cv2`). Out: the versions of what is installed, by its own name
(`opencv-python-headless`), and Python's. Imports none of them.
"""

import functools
import importlib.metadata
import platform
from collections.abc import Iterable

_INSTALLED_AS = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "huggingface_hub": "huggingface-hub",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "PyYAML",
}  # fmt: skip


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """{name: version} of those that are installed, and of Python."""
    names = sorted(_INSTALLED_AS.get(name, name) for name in libraries)
    versions = {name: version for name in names if (version := _version(name))}
    return {"python": platform.python_version(), **versions}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
