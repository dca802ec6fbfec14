"""Stage `deduplicate`: all curated parts in, the selection with its splits out."""

from distillery.core.run import Run
from distillery.data.dedupe import selection as selecting
from distillery.data.dedupe.find import find_duplicates, load_thumbnails, read_rows
from distillery.params import Params
from distillery.stage import In, Out, stage


@stage(reads=["seed", "data.parts", "deduplicate"])
def deduplicate(params: Params, run: Run, curated: In, selection: Out) -> None:
    """Keep the best copy of every picture and draw train, val and test per cluster."""
    settings = params.deduplicate
    folders = selecting.part_folders(curated, params.data.parts)
    counts = selecting.read_counts(folders)
    selecting.require_kept(counts, curated)
    kept, duplicates = find_duplicates(
        read_rows(folders),
        load_thumbnails(folders, run.work / "thumbnails"),
        max_hamming=settings.max_hamming,
        min_ssim=settings.min_ssim,
    )
    selection.mkdir()
    funnel = selecting.make_funnel(counts, duplicates)
    selecting.write_funnel(selection, funnel)
    selecting.write_selection(
        selection,
        kept,
        duplicates,
        seed=params.seed,
        val_share=settings.split.val,
        test_share=settings.split.test,
    )


if __name__ == "__main__":
    deduplicate.main()
