"""The U-Nets that these tests share."""

from unet_fixtures import student, svd_student, teacher, unet

__all__ = ["student", "svd_student", "teacher", "unet"]
