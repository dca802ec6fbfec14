"""The filter on the user's own lists of what must not be used."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from distillery.core.errors import DistilleryError
from distillery.data.curation.filters.base import Candidate, Filter


@dataclass(frozen=True)
class Blocklist(Filter):
    """URL, md5 or sha256 stands in one of the user's lists, which are read at once."""

    reason = "blocklist"
    blocklists: Annotated[
        list[str],
        Field(description="Images whose URL, md5 or sha256 is a line of these files go."),
    ]

    def __post_init__(self) -> None:
        self._entries  # noqa: B018  an unreadable list is an error before the first row

    @functools.cached_property
    def _entries(self) -> frozenset[str]:
        return frozenset(read_blocklists([Path(name) for name in self.blocklists]))

    def reject(self, row: Candidate) -> str | None:
        names = {"url": row.url, "md5": row.md5, "sha256": row.sha256}
        return next((name for name, value in names.items() if value in self._entries), None)

    def condition(self) -> str | None:
        if not self.blocklists:
            return None
        files = ", ".join("'" + name.replace("'", "''") + "'" for name in self.blocklists)
        lines = f"SELECT unnest(string_split(content, chr(10))) AS line FROM read_text([{files}])"
        return f"url IN (SELECT trim(line, ' ' || chr(9) || chr(13)) FROM ({lines}))"


def read_blocklists(paths: Iterable[Path]) -> set[str]:
    """Entries of text files with one URL, md5 or sha256 a line; `#` starts a comment line."""
    entries: set[str] = set()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DistilleryError(
                f"{path}: not readable as a text file ({error}); correct that name under blocklists"
            ) from None
        stripped = (line.strip() for line in lines)
        entries.update(_entry(line) for line in stripped if line and not line.startswith("#"))
    return entries


def _entry(line: str) -> str:
    """Hashes are compared in lower case, URLs as they are."""
    is_hash = re.fullmatch(r"(?:[0-9a-fA-F]{32}){1,2}", line)
    return line.lower() if is_hash else line
