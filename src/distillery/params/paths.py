"""The section paths of params.yaml: where everything lives."""

from distillery.params.base import Frozen, PathName


class Paths(Frozen):
    """Where everything lives, relative to the repository; each path stands here only."""

    raw: PathName
    """source images as img2dataset shards"""
    curated: PathName
    """kept images, by part"""
    selection: PathName
    """which images are used, and for what"""
    conditions: PathName
    """condition maps, by part and kind"""
    scenes_teacher: PathName
    """the shipped tiny Stable Diffusion"""
    teacher: PathName
    """the teacher, in diffusers layout"""
    teacher_cache: PathName
    """the teacher's outputs, by view and part"""
    init: PathName
    """the decomposed U-Net"""
    models: PathName
    """everything trained"""
    samples: PathName
    """generated images, by family and variant"""
    metrics: PathName
    """metrics, by family and variant"""
    results: PathName
    """committed results of larger runs, which the report reads"""
    reports: PathName
    """the report"""
    work: PathName
    """resume state, logs and run records; no front end declares it"""
