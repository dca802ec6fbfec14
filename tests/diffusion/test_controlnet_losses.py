"""The layerwise distance against NumPy: whose statistics, over which axes, exact zeros."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distillery.diffusion.layerwise import Layerwise

SHAPES = [(3, 4, 5, 6), (3, 8, 2, 3)]
OVER = {"sample": (1, 2, 3), "layer_batch": None, "channel": (0, 2, 3), "instance": (2, 3)}


def _outputs(seed: int, gain: float = 1.0) -> list[Tensor]:
    """Outputs whose samples and channels differ in mean and size."""
    generator = np.random.default_rng(seed)
    values = []
    for n, c, h, w in SHAPES:
        size = generator.uniform(0.2, 3, (n, c, 1, 1))
        shift = generator.normal(size=(n, c, 1, 1))
        values.append(gain * (size * generator.normal(size=(n, c, h, w)) + shift))
    return [torch.from_numpy(v.astype(np.float32)) for v in values]


def _distances(
    teacher: list[Tensor], student: list[Tensor], stats: str = "teacher", axes: str = "sample"
) -> list[float]:
    given = Layerwise(nn.Module(), len(teacher), stats, axes).distances(teacher, student)
    return [float(value) for value in given]


def _expected(teacher: Tensor, student: Tensor, stats: str, over: tuple | None) -> float:
    theirs, mine = teacher.double().numpy(), student.double().numpy()

    def normalised(values: np.ndarray, of: np.ndarray) -> np.ndarray:
        centre = np.mean(of, axis=over, keepdims=True)
        spread = np.sqrt(np.mean((of - centre) ** 2, axis=over, keepdims=True))
        return (values - centre) / np.maximum(spread, 1e-4)

    of_student = mine if stats == "own" else theirs
    return float(np.mean((normalised(theirs, theirs) - normalised(mine, of_student)) ** 2))


@pytest.mark.parametrize("stats", ["teacher", "own"])
@pytest.mark.parametrize("axes", list(OVER))
def test_distances_are_those_of_numpy(stats: str, axes: str) -> None:
    teacher, student = _outputs(0), _outputs(1, gain=0.7)
    given = _distances(teacher, student, stats, axes)
    for got, theirs, mine in zip(given, teacher, student, strict=True):
        assert got == pytest.approx(_expected(theirs, mine, stats, OVER[axes]), rel=1e-4)


def test_every_choice_of_axes_gives_another_loss() -> None:
    teacher, student = _outputs(0), _outputs(1)
    totals = [sum(_distances(teacher, student, axes=axes)) for axes in OVER]
    assert len({round(total, 3) for total in totals}) == len(OVER)


def test_a_student_equal_to_its_teacher_is_at_distance_0() -> None:
    teacher = _outputs(0)
    for stats in ("teacher", "own"):
        for axes in (*OVER, "running"):
            same = [t.clone() for t in teacher]
            assert _distances(teacher, same, stats, axes) == [0.0, 0.0]


def test_twice_the_teacher_is_far_by_the_teachers_statistics_and_not_by_its_own() -> None:
    teacher = _outputs(0)
    twice = [2 * t for t in teacher]
    assert min(_distances(teacher, twice)) > 0.9
    assert max(_distances(teacher, twice, "own")) < 1e-9


def test_a_constant_output_is_divided_by_the_floor() -> None:
    teacher, student = torch.full((2, 3, 2, 2), 5.0), torch.full((2, 3, 2, 2), 5.001)
    assert _distances([teacher], [student])[0] == pytest.approx(100, rel=1e-2)


def test_unequal_numbers_of_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        _distances(_outputs(0), _outputs(1)[:1])


def test_no_gradient_goes_through_statistics_or_into_the_teacher() -> None:
    teacher, student = _outputs(0)[0].requires_grad_(), _outputs(1)[0].requires_grad_()
    with torch.no_grad():
        mean = student.mean((1, 2, 3), keepdim=True)
        sigma = student.std((1, 2, 3), correction=0, keepdim=True)
        wanted = teacher - teacher.mean((1, 2, 3), keepdim=True)
        wanted = wanted / teacher.std((1, 2, 3), correction=0, keepdim=True)
        slope = 2 * ((student - mean) / sigma - wanted) / sigma / student.numel()
    distance = Layerwise(nn.Module(), 1, "own", "sample").distances([teacher], [student])[0]
    distance.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, slope)


def test_running_statistics_move_in_training_only_and_are_kept_with_the_checkpoint() -> None:
    module = nn.Module()
    layers = Layerwise(module, 1, "teacher", "running")
    first, second, student = _outputs(0)[0], 3 * _outputs(1)[0] + 1, _outputs(2)[0]

    def expected(mean: float, variance: float, teacher: Tensor) -> float:
        return float(((teacher - student) ** 2).mean() / variance)

    with torch.no_grad():  # nothing is known yet: the batch's own
        fresh = layers.distances([second], [student])[0]
    assert float(fresh) == pytest.approx(expected(0, second.var(correction=0), second), rel=1e-4)
    got = layers.distances([first], [student])[0]
    variance = float(first.var(correction=0))
    assert float(got) == pytest.approx(expected(0, variance, first), rel=1e-4)
    variance += 0.1 * (float(second.var(correction=0)) - variance)
    got = layers.distances([second], [student])[0]
    assert float(got) == pytest.approx(expected(0, variance, second), rel=1e-4)
    with torch.no_grad():
        still = layers.distances([second], [student])[0]
    assert float(still) == float(got)
    assert dict(module.named_buffers())
    assert not module.state_dict()
