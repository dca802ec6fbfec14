"""The section paths of params.yaml: where everything lives."""

from distillery.params.base import Frozen, PathName


class Paths(Frozen):
    """Where everything lives, relative to the repository; each path stands here only."""

    raw: PathName
    """Folder of the source images, as img2dataset shards."""
    curated: PathName
    """Folder of the images that curation kept, by part."""
    selection: PathName
    """Folder of the table that says which images are used, and for what."""
    conditions: PathName
    """Folder of the condition maps, by part and kind."""
    scenes_teacher: PathName
    """Folder of the tiny Stable Diffusion that is shipped with the repository."""
    teacher: PathName
    """Folder of the teacher, in diffusers layout."""
    teacher_cache: PathName
    """Folder of the teacher's recorded outputs, by view and part."""
    init: PathName
    """Folder of the decomposed U-Nets that low-rank students start from."""
    models: PathName
    """Folder of everything trained, by family and variant."""
    samples: PathName
    """Folder of the generated images, by family and variant."""
    metrics: PathName
    """Folder of the metrics, by family and variant."""
    results: PathName
    """Folder of committed results of larger runs, which the report reads."""
    reports: PathName
    """Folder of the report and its tables."""
    work: PathName
    """Folder of resume states, logs and run records; no front end declares it."""
