"""What to do where no image is left, in words.

In: how many images went for which reason. Out: the end of an error's line.
"""

from collections import Counter

__computes__ = False  # texts, not part of any stage's code

_LOOSEN = "loosen that filter under curate in the params, or look at its rows in rejected/"
_NO_FILTER = {
    "caption_empty": "give every image a caption: a text file of its name with .txt beside it, or "
    "a metadata.csv with file_name,text",
    "unreadable": "the files are broken, or not the ones that metadata.csv or the shards name; "
    "their rows in rejected/ say which",
    "not_downloaded": "their addresses did not answer; their rows in rejected/ say why",
}


def advice(reasons: Counter[str]) -> str:
    """By the reason for which most went."""
    most = next((name for name, _ in reasons.most_common(1)), "")
    return _NO_FILTER.get(most, _LOOSEN)
