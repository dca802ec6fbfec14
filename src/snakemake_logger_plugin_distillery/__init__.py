"""Says what is wrong in a file given by `snakemake --configfile`, with its line.

Snakemake reads these files before the Snakefile, and of one that is no YAML it says only that. What
it imports before is every package of this name's form, so this one, in the root of this project,
reads the files first: one line for a broken one, and the end. It logs nothing.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase

_OPTIONS = ("--configfile", "--configfiles")
_OURS = Path("src/distillery/params/load.py")


class LogHandler(LogHandlerBase):
    """What Snakemake asks of such a package; does nothing where `--logger distillery` is given."""

    writes_to_stream = writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    def emit(self, record: object) -> None:
        """Log nothing."""


def config_files(words: Sequence[str]) -> Iterator[Path]:
    """The files that a command line of Snakemake lays over params.yaml."""
    is_file = False
    for word in words:
        option, _, value = word.partition("=")
        if word.startswith("-"):
            is_file, word = option in _OPTIONS, value
        if is_file and word:
            yield Path(word)


def require_readable(words: Sequence[str]) -> None:
    """End with one line where such a file can't be read; in other projects do nothing."""
    files = list(config_files(words)) if _OURS.is_file() else []
    if not files:
        return
    from distillery.core.errors import DistilleryError
    from distillery.params.read import read_values

    try:
        for file in files:
            read_values(file)
    except DistilleryError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


require_readable(sys.argv[1:])
