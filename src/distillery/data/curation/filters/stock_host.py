"""The filter on stock-photo hosts."""

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from distillery.data.curation.filters.base import Candidate, Filter


@dataclass(frozen=True)
class StockHost(Filter):
    """The URL is on a stock-photo host or below it; such images carry watermarks."""

    reason = "stock_host"
    stock_hosts: Annotated[
        list[str],
        Field(description="Images whose URL is on one of these hosts, or below it, are dropped."),
    ]

    def reject(self, row: Candidate) -> str | None:
        host, names = _host(row.url or ""), (name.lower() for name in self.stock_hosts)
        return next((name for name in names if host == name or host.endswith(f".{name}")), None)

    def condition(self) -> str | None:
        if not self.stock_hosts:
            return None
        names = [name.lower().replace("'", "''") for name in self.stock_hosts]
        named = " OR ".join(f"contains(lower(url), '{name}')" for name in names)
        host = rf"([a-z0-9._-]*\.)?({'|'.join(map(re.escape, names))})(:[0-9]*)?([/?#]|$)"
        whole, bare = f"^[a-z][a-z0-9+.-]*://{host}", f"^{host}"
        return (
            f"({named}) AND (regexp_matches(lower(url), '{whole}') OR "
            f"(NOT contains(url, '//') AND regexp_matches(lower(url), '{bare}')))"
        )


def _host(url: str) -> str:
    """Lower-case host of a URL, also of one without scheme; empty where there is none."""
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""
