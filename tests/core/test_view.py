"""Settings are restricted to declared keys at any depth."""

import pytest

from distillery.core.view import UndeclaredError, restrict
from distillery.params import Params


def test_a_declared_section_is_as_it_is(default_params: Params) -> None:
    view = restrict(default_params, ["curate", "distill_unet.variants.elr", "seed"])
    assert view.curate == default_params.curate
    assert dict(view.curate) == dict(default_params.curate)
    assert view.curate.model_dump() == default_params.curate.model_dump()
    assert view.distill_unet.variants["elr"] == default_params.distill_unet.variants["elr"]
    assert view.seed == 0


def test_nothing_else_is_given(default_params: Params) -> None:
    view = restrict(default_params, ["distill_unet.kd.weighting.kind"])
    assert view.distill_unet.kd.weighting.kind == "min_snr"
    for read in (
        lambda: view.seed,
        lambda: view.distill_unet.training,
        lambda: view.distill_unet.kd.gamma,
        lambda: view.distill_unet.kd.weighting.gamma,
        lambda: view.distill_unet.variants["elr"],
        lambda: view.distill_unet.kd.model_dump(),
        lambda: dict(view.distill_unet.kd),
        lambda: list(view.distill_unet.kd),
        lambda: view.distill_unet.kd == default_params.distill_unet.kd,
    ):
        with pytest.raises(UndeclaredError):
            read()
