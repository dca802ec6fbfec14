"""Low-rank U-Nets: the architecture, its decomposition of a teacher, rank rules and the planner."""

from distillery.models.lowrank.unet import LowRankUNet2DConditionModel, lora_targets

__all__ = ["LowRankUNet2DConditionModel", "lora_targets"]
