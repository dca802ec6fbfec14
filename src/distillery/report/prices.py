"""What people call the costs of models: one entry each, for tables, charts, cards and CSV files.

In: nothing. Out: `COSTS`, by the name under which a cost stands in the profile, in the order of
tables. Metrics have `metrics.catalog`. Not here: values, numbers in words (`story`).
"""

from dataclasses import dataclass

_AXES = {"": ("millions", 1e-6), "MAC": ("millions", 1e-6), "s": ("ms", 1e3), "B": ("MB", 1e-6)}


@dataclass(frozen=True)
class Cost:
    """A cost in words; `column` heads it in the tables of costs, `unit` is the profile's."""

    label: str
    column: str
    unit: str = ""

    @property
    def axis(self) -> str:
        """Its name in charts."""
        return f"{self.label}, {_AXES[self.unit][0]}"

    @property
    def scale(self) -> float:
        """What charts multiply its values by."""
        return _AXES[self.unit][1]


PARAMETERS = {
    "parameters_total": Cost("parameters of the pipeline", "total"),
    "parameters_unet": Cost("U-Net parameters", "U-Net"),
    "parameters_adapter": Cost("ControlNet or adapter parameters", "ControlNet or adapter"),
    "parameters_requires_grad": Cost("trainable parameters", "trainable"),
    "parameters_in_optimiser": Cost("trained parameters", "trained"),
    "parameters_evaluated": Cost("parameters as evaluated", "as evaluated"),
    "bytes_on_disk": Cost("size in float32", "size in float32", "B"),
    "macs": Cost("multiply-accumulates per evaluation", "MACs", "MAC"),
}
# `batch8`: per image at batch size 8. `image`: of 50 steps, with text encoder and VAE.
SPEED = {
    "latency_s": Cost("time per evaluation", "evaluation, ms", "s"),
    "latency_batch8_s": Cost("time per image at batch 8", "at batch 8, ms per image", "s"),
    "image_s": Cost("time per image of 50 steps", "image of 50 steps, ms", "s"),
    "image_batch8_s": Cost("time per image of 50 steps at batch 8", "at batch 8, ms", "s"),
    "train_step_s": Cost("time per training step", "training step, ms", "s"),
    "memory_bytes": Cost("memory per evaluation", "memory, evaluation", "B"),
    "memory_batch8_bytes": Cost("memory at batch 8", "at batch 8", "B"),
    "train_memory_bytes": Cost("training memory", "memory, training", "B"),
}
COSTS = PARAMETERS | SPEED
