"""Factors whose Hadamard product (X1 Y1) * (X2 Y2) is near a given matrix.

In: a matrix and starting factors, float64. Out: factors and the relative error after each sweep,
which never increases. No layers here: `hadamard` has them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Factors = Sequence[Tensor]
_DAMPING = 1e-9  # relative to the mean diagonal; keeps a singular normal matrix solvable


def relative_error(matrix: Tensor, factors: Factors) -> float:
    """||W - (X1 Y1) * (X2 Y2)|| / ||W||, Frobenius."""
    x1, y1, x2, y2 = factors
    return float((matrix - (x1 @ y1) * (x2 @ y2)).norm() / matrix.norm())


def fit(
    matrix: Tensor, factors: Factors, num_sweeps: int, seed: int
) -> tuple[list[Tensor], list[float]]:
    """Alternating least squares from the better of `factors` and a spectral start.

    With X2 Y2 fixed, W ~ (X1 Y1) * M is a weighted least-squares problem of its own for each row of
    X1, and for each column of Y1. Each sweep solves X1, Y1, X2, Y2 in turn. A row that would get
    worse by rounding keeps its value, so that errors cannot increase.

    Returns the factors and the errors: of `factors` as given, then after each sweep.
    """
    errors = [relative_error(matrix, factors)]
    guess = _spectral_start(matrix, factors[0].shape[1], seed)
    current = list(guess if relative_error(matrix, guess) < errors[0] else factors)
    for _ in range(num_sweeps):
        for first, second in ((0, 2), (2, 0)):
            x, y = current[first : first + 2]
            mask = current[second] @ current[second + 1]
            x = _improve_rows(matrix, mask, x, y)
            y = _improve_rows(matrix.T, mask.T, y.T, x.T).T
            current[first : first + 2] = x, y
        errors.append(relative_error(matrix, current))
    return current, errors


def balanced(factors: Factors) -> list[Tensor]:
    """Factors of the same product, every component spread evenly, both products of equal norm."""
    pairs = []
    for x, y in (factors[:2], factors[2:]):
        norm_x, norm_y = x.norm(dim=0), y.norm(dim=1)
        scale = torch.where((norm_x > 0) & (norm_y > 0), (norm_y / norm_x).sqrt(), 1)
        pairs.append((x * scale, y / scale[:, None]))
    norms = [float((x @ y).norm()) for x, y in pairs]
    if min(norms) > 0:
        scale = (norms[1] / norms[0]) ** 0.25
        (x1, y1), (x2, y2) = pairs
        pairs = [(x1 * scale, y1 * scale), (x2 / scale, y2 / scale)]
    return [factor for pair in pairs for factor in pair]


def _spectral_start(matrix: Tensor, rank: int, seed: int) -> list[Tensor]:
    """X1 Y1 = the truncated SVD of W, X2 Y2 = all ones: the error of a low-rank layer, to begin.

    The other components of the second product have random Y2 and zero X2, which the first solve
    for X2 fills.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    kept = min(rank, len(s))
    generator = torch.Generator().manual_seed(seed)
    y2 = torch.randn(rank, matrix.shape[1], generator=generator, dtype=torch.float64)
    x2 = torch.zeros(matrix.shape[0], rank, dtype=torch.float64)
    x2[:, 0], y2[0] = 1, 1
    x1, y1 = x2.new_zeros(x2.shape).to(matrix), torch.zeros_like(y2).to(matrix)
    x1[:, :kept] = u[:, :kept] * s[:kept].sqrt()
    y1[:kept] = s[:kept, None].sqrt() * vt[:kept]
    return [x1, y1, x2.to(matrix), y2.to(matrix)]


def _improve_rows(matrix: Tensor, mask: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Rows of X that minimise ||W - (X Y) * M||, each its own problem of `rank` unknowns.

    Row i: (Y diag(M_i)^2 Y^T) x_i = Y (M_i * W_i). Solved for the change from the present row,
    which damping then makes smaller, never wrong.
    """
    rank = x.shape[1]
    residual = matrix - (x @ y) * mask
    squares = mask.square()
    pairs = (y[:, None] * y[None, :]).reshape(rank * rank, -1)
    normal = (squares @ pairs.T).reshape(-1, rank, rank)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    diagonal += _DAMPING * diagonal.mean(1, keepdim=True) + torch.finfo(normal.dtype).tiny
    step, _ = torch.linalg.solve_ex(normal, ((residual * mask) @ y.T)[..., None])
    moved = x + torch.nan_to_num(step[..., 0])
    before = residual.square().sum(1)
    after = (matrix - (moved @ y) * mask).square().sum(1)
    return torch.where((after < before)[:, None], moved, x)
