"""What is known of an operator's result on the meta device is what torch itself says."""

import pytest
import torch

from distillery.cost.shapes import _SHAPES, run_operator

ATEN = torch.ops.aten
META = {"device": "meta"}
IMAGE = torch.empty(2, 8, 4, 4, **META)
TOKENS = torch.empty(2, 6, 8, **META)
PERMUTED = torch.empty(2, 8, 6, **META).transpose(1, 2)
WIDTH, GROUPS, ROWS = (
    torch.empty(8, **META),
    torch.empty(2, 4, **META),
    torch.empty(2, 6, 1, **META),
)
CASES = {
    "add": (ATEN.add.Tensor, (PERMUTED, PERMUTED)),
    "add, broadcast": (ATEN.add.Tensor, (TOKENS, WIDTH)),
    "add, two layouts": (ATEN.add.Tensor, (TOKENS[:, :4], PERMUTED[:, :4])),
    "div": (ATEN.div.Tensor, (TOKENS, 2)),
    "mul": (ATEN.mul.Tensor, (TOKENS[:, ::2], TOKENS[:, ::2])),
    "mul, number": (ATEN.mul.Scalar, (IMAGE, 0.5)),
    "addmm": (ATEN.addmm.default, (torch.empty(5, **META), TOKENS[0], torch.empty(8, 5, **META))),
    "softmax": (ATEN._safe_softmax.default, (TOKENS, -1)),
    "gelu": (ATEN.gelu.default, (TOKENS,)),
    "gelu backward": (ATEN.gelu_backward.default, (TOKENS, TOKENS)),
    "silu": (ATEN.silu.default, (IMAGE,)),
    "group norm": (ATEN.native_group_norm.default, (IMAGE, WIDTH, WIDTH, 2, 8, 16, 4, 1e-5)),
    "group norm backward": (
        ATEN.native_group_norm_backward.default,
        (IMAGE, IMAGE, GROUPS, GROUPS, WIDTH, 2, 8, 16, 4, [True, False, True]),
    ),
    "layer norm": (ATEN.native_layer_norm.default, (TOKENS, [8], WIDTH, WIDTH, 1e-5)),
    "layer norm, permuted": (ATEN.native_layer_norm.default, (PERMUTED, [8], WIDTH, WIDTH, 1e-5)),
    "layer norm backward": (
        ATEN.native_layer_norm_backward.default,
        (TOKENS, TOKENS, [8], ROWS, ROWS, WIDTH, WIDTH, [True, True, False]),
    ),
}


def described(result) -> list:
    results = result if isinstance(result, tuple) else (result,)
    return [r if r is None else (r.shape, r.stride(), r.dtype, r.device) for r in results]


def test_every_operator_has_a_case() -> None:
    assert {operator for operator, _ in CASES.values()} == set(_SHAPES)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_as_torch_has_it(name: str, dtype: torch.dtype) -> None:
    operator, args = CASES[name]
    given = tuple(a.to(dtype) if isinstance(a, torch.Tensor) else a for a in args)
    assert described(run_operator(operator, given, None)) == described(operator(*given))


def test_other_devices_compute() -> None:
    x = torch.tensor([-1.0, 2.0])
    assert torch.equal(run_operator(ATEN.silu.default, (x,), None), torch.nn.functional.silu(x))
