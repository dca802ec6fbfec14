"""Write all files that follow from the source: code locks, dvc.yaml's lists, the params' docs.

In: src/distillery and params.yaml. Out: workflow/code/<verb>.lock (what a stage's code is), in
dvc.yaml the lock and the `reads` of every stage, workflow/schemas/ (for editors, and the shipped
params.yaml that presets differ from) and docs/params.md.

    python workflow/sync.py           write what is out of date
    python workflow/sync.py --check   write nothing; end with 1 if something is out of date
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "workflow")]

from generated import dvc_stages, params_docs  # noqa: E402

from distillery.commands.use import SHIPPED  # noqa: E402
from distillery.core.code.lock import kept_codes, lock_path, lock_text  # noqa: E402


def wanted() -> dict[Path, str | None]:
    """The text that every generated file should have; None for one that should not be there."""
    locks = {lock_path(verb): lock_text(verb, code) for verb, code in kept_codes().items()}
    old = set((ROOT / "workflow/code").glob("*.lock")) - set(locks)
    dvc = ROOT / "dvc.yaml"
    params = params_docs.texts(ROOT / "params.yaml", ROOT / SHIPPED)
    return {
        **dict.fromkeys(old),
        **locks,
        dvc: dvc_stages.synced(dvc.read_text(encoding="utf-8")),
        **{ROOT / path: text for path, text in params.items()},
    }


def write(path: Path, text: str | None) -> None:
    """Give a file its text, or remove it."""
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """Write or check."""
    texts = wanted()
    stale = [
        p for p, text in texts.items() if (p.read_text("utf-8") if p.is_file() else None) != text
    ]
    for path in stale:
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)}: out of date; run `python workflow/sync.py`")
        else:
            write(path, texts[path])
    return int("--check" in sys.argv and len(stale) > 0)


if __name__ == "__main__":
    sys.exit(main())
