"""Stage `deduplicate`: all curated parts in, the selection with its splits out.

What was found of pairs is kept in `work/deduplicate/known.npz`, so that a run with more images
compares the new ones. It is used for the same code, libraries and thresholds only, also of
curation, which makes the hashes and sketches of an image's bytes. Where the params name an
embedding, its vectors are kept beside, for the same code, libraries, weights and device.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from distillery.core.artifacts import MANIFEST, hash_json, read_manifest
from distillery.core.run import Run
from distillery.data.dedupe import selection as selecting
from distillery.data.dedupe.embedding import Embedding
from distillery.data.dedupe.find import find_duplicates
from distillery.data.dedupe.known import Known
from distillery.data.dedupe.rows import read_rows
from distillery.data.dedupe.told import told
from distillery.data.dedupe.views import CuratedViews
from distillery.params import Params
from distillery.params.deduplicate import Deduplicate
from distillery.stage import In, Out, stage


@stage(reads=["seed", "data.parts", "deduplicate"], unrecorded=["device"])
def deduplicate(params: Params, run: Run, curated: In, selection: Out) -> None:
    """Keep the best copy of every picture and draw train, val and test per cluster."""
    settings = params.deduplicate
    folders = selecting.part_folders(curated, params.data.parts)
    counts = selecting.read_counts(folders)
    selecting.require_kept(counts, curated)
    known = _known(run, folders.values(), settings)
    found = find_duplicates(
        read_rows(folders),
        CuratedViews(folders, run.work),
        max_hamming=settings.max_hamming,
        min_ssim=settings.min_ssim,
        drop_mirrored=settings.mirrored == "drop",
        known=known,
        embedding=_embedding(run, settings, params.device) if settings.embedding else None,
    )
    known.write()
    if len(found.mirrored):
        stay = f"{len(found.mirrored)} mirror images stay, by deduplicate.mirrored"
        print(stay, file=sys.stderr)
    selection.mkdir()
    selecting.write_funnel(selection, selecting.make_funnel(counts, found))
    selecting.write_selection(
        selection,
        found,
        seed=params.seed,
        val_share=settings.split.val,
        test_share=settings.split.test,
    )
    print(told(selection), file=sys.stderr)


def _known(run: Run, folders: Iterable[Path], settings: Deduplicate) -> Known:
    if not all((folder / MANIFEST).is_file() for folder in folders):
        return Known()  # of no known making
    recipes = [read_manifest(folder)["recipe"] for folder in folders]
    makers = [[r.get(name) for name in ("code", "libraries", "begun_with")] for r in recipes]
    thresholds = [settings.max_hamming, settings.min_ssim]
    distinct = sorted(set(map(hash_json, makers)))
    key = hash_json([run.made_by, distinct, thresholds])
    return Known(run.work_root / run.label / "known.npz", key)


def _embedding(run: Run, settings: Deduplicate, device: str) -> Embedding:
    from distillery.core.device import claim_device
    from distillery.metrics.features import load_extractor

    network = load_extractor(settings.embedding, None, claim_device(device))
    name = hash_json([run.made_by, network.fingerprint, device])[:16]
    folder = run.work_root / run.label / "embeddings"
    return Embedding(network, name, settings.embedding_similarity, folder)


if __name__ == "__main__":
    deduplicate.main()
