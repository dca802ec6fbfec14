"""Tells people which captions look as if UTF-8 had been read as another encoding: `CafÃ©`.

In: a curated part. Out: no line, or one with how many such captions there are and the first of
them. They stay as they are: a guess is no reason to change a text.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from distillery.data.curation.curate import read_part_columns

__computes__ = False  # text on the terminal

_MAX_SHOWN_CHARS = 60
# What the bytes 80 to BF are in Windows-1252, or in Latin-1: bytes that go on a letter in UTF-8.
_MARKS = "\u00a9\u00ab\u00ae\u00bb\u2013\u2014\u2018-\u201e\u2026\u203a\u20ac\u2122"  # behind words
_OTHERS = (
    "\u0080-\u00a8\u00aa\u00ac\u00ad\u00af-\u00ba\u00bc-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d"
    "\u017e\u0192\u02c6\u02dc\u2020-\u2022\u2030\u2039"
)
_REST = f"[{_MARKS}{_OTHERS}]"
# Western letters, unless a word in capitals may end there ("AMANHÃ…"), and typographer's marks;
# pictographs; several letters in a row of other scripts.
_GARBLED = (
    f"(?:^|\\P{{Lu}})[\u00c2\u00c3]{_REST}|[\u00c2\u00c3](?:[{_OTHERS}]|[{_MARKS}]\\p{{L}})"
    f"|[\u00c4\u00c5][{_OTHERS}]|\u00e2[\u0080\u20ac]{_REST}|\u00e1\u00ba{_REST}|\u00f0[\u009f\u0178]"
    f"|(?:[\u00ce-\u00d9]{_REST}){{2}}|(?:[\u00e0-\u00ef]{_REST}{_REST}){{2}}"
)


def garbled_lines(curated: Path, num_rows: int) -> Iterator[str]:
    """Of a part of which `num_rows` rows are kept."""
    num, first = 0, ""
    for table in read_part_columns(curated, ["key", "caption"]):
        found = table.filter(pc.match_substring_regex(table["caption"], _GARBLED))
        if len(found) and not first:
            row = found.slice(0, 1).to_pylist()[0]
            first = f"{row['key']}: {row['caption'][:_MAX_SHOWN_CHARS]}"
        num += len(found)
    if num:
        yield (
            f"{num} of {num_rows} captions look like UTF-8 that was read as another encoding, and "
            f"are kept as they are, first {first}; mend the source's texts, as ftfy does"
        )
