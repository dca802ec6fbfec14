"""Stage `deduplicate`: all curated parts in, the selection with its splits out."""

from distillery.core.run import Run
from distillery.data.dedupe import selection as selecting
from distillery.data.dedupe.find import find_duplicates, read_rows
from distillery.data.dedupe.views import CuratedViews
from distillery.params import Params
from distillery.stage import In, Out, stage


@stage(reads=["seed", "data.parts", "deduplicate"])
def deduplicate(params: Params, run: Run, curated: In, selection: Out) -> None:
    """Keep the best copy of every picture and draw train, val and test per cluster."""
    settings = params.deduplicate
    folders = selecting.part_folders(curated, params.data.parts)
    counts = selecting.read_counts(folders)
    selecting.require_kept(counts, curated)
    found = find_duplicates(
        read_rows(folders),
        CuratedViews(folders, run.work),
        max_hamming=settings.max_hamming,
        min_ssim=settings.min_ssim,
        drop_mirrored=settings.mirrored == "drop",
    )
    if found.mirrored:
        print(f"deduplicate: {len(found.mirrored)} mirror images stay, by deduplicate.mirrored")
    selection.mkdir()
    selecting.write_funnel(selection, selecting.make_funnel(counts, found.gone))
    selecting.write_selection(
        selection,
        found,
        seed=params.seed,
        val_share=settings.split.val,
        test_share=settings.split.test,
    )


if __name__ == "__main__":
    deduplicate.main()
