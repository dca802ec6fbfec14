import numpy as np
import pytest
import torch

from distillery.core.errors import DistilleryError
from distillery.models.student_controlnet.modulation import MODULATIONS, build_modulation

H = torch.randn(2, 32, 3, 3, generator=torch.Generator().manual_seed(0))
TEMB = torch.randn(2, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", MODULATIONS)
def test_is_the_identity_at_first(kind):
    assert torch.equal(build_modulation(kind, 32, 12)(H, TEMB), H)


def test_film_scales_and_shifts_by_the_time_embedding():
    film = build_modulation("film", 32, 12)
    torch.nn.init.normal_(film.linear.weight)
    torch.nn.init.normal_(film.linear.bias)
    temb = TEMB.numpy()
    silu = temb / (1 + np.exp(-temb))
    both = silu @ film.linear.weight.detach().numpy().T + film.linear.bias.detach().numpy()

    expected = H.numpy() * (1 + both[:, :32, None, None]) + both[:, 32:, None, None]

    assert np.allclose(film(H, TEMB).detach(), expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in film.parameters()) == 2 * 32 * (12 + 1)


def test_static_ignores_time_and_se_follows_the_features():
    static, se = build_modulation("static", 32, 12), build_modulation("se", 32, 12)
    torch.nn.init.normal_(static.gain)
    torch.nn.init.normal_(se.excite.weight)

    assert torch.equal(static(H, TEMB), static(H, 5 * TEMB))
    assert not torch.equal(static(H, TEMB), H)
    gains = se(H, TEMB) / H
    assert torch.allclose(gains, gains[:, :, :1, :1].expand_as(gains), rtol=1e-4)
    assert not torch.allclose(gains[0], gains[1])


def test_refuses_an_unknown_kind():
    with pytest.raises(DistilleryError, match="use one of none, film, static, se"):
        build_modulation("adain", 32, 12)
