"""What the search box of the pages finds: models, metrics, costs, claims, pages.

In: the pages' contents. Out: [{"text", "kind", "href"}], links from the folder of the report.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = dict[str, str]


def slug(name: str) -> str:
    """An id for a page: `unet/elr` as `unet-elr`."""
    return "".join(c if c.isalnum() or c == "_" else "-" for c in name.lower()).strip("-")


def entries(
    families: Sequence[Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
    costs: Sequence[Mapping[str, Any]],
) -> list[Entry]:
    """Everything that has a place of its own on a page, the likeliest to be looked for first."""
    found = [entry for family in families for entry in _models(family)]
    found += [entry for family in families for entry in _metrics(family)]
    for table in costs:
        href = f"pages/cost.html#{slug(table['title'])}"
        found += [_entry(f"{name}, {table['title']}", "cost", href) for name in table["columns"]]
    found += [
        _entry(claim["statement"], "claim", f"pages/claims.html#{claim['id']}") for claim in claims
    ]
    return found


def _models(family: Mapping[str, Any]) -> Iterator[Entry]:
    for row in family["measured"]["rows"]:
        if row["id"]:
            href = f"pages/{family['id']}.html#{slug(row['id'])}"
            yield _entry(f"{row['label']} ({row['id']})", family["title"], href)


def _metrics(family: Mapping[str, Any]) -> Iterator[Entry]:
    for column in family["measured"]["columns"]:
        href = f"pages/{family['id']}.html#measured"
        yield _entry(f"{column['label']} ({column['name']})", family["title"], href)


def _entry(text: str, kind: str, href: str) -> Entry:
    return {"text": text, "kind": kind, "href": href}
