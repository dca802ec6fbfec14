"""Rank-r factorisations of one weight: truncated SVD, and data-aware.

In: a Linear or Conv2d weight, a rank, and for data-aware the second moment of the layer's inputs or
outputs. Out: A (out x r) and B (r x fan_in), fan_in = in * kh * kw. Nothing here touches modules.

Singular vectors come from a float64 eigendecomposition of the smaller Gram matrix. For a weight of
1280 x 11520 that takes 2.4 s on one core against 9.6 s for `torch.linalg.svd` in float32, for
square ones the same (`benchmarks/svd_init.py`). Singular values below 1e-8 of the largest are not
resolved, but no sensible rank keeps those. Signs are fixed, so that equal weights give equal bytes
on one machine and number of threads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from distillery.core.errors import DistilleryError

INITS = ("svd", "data_aware")


class Factors(NamedTuple):
    """W ~ `a` @ `b`, with `a` (out, rank) and `b` (rank, fan_in), both float64."""

    a: Tensor
    b: Tensor


def decompose(
    weight: Tensor,
    rank: int,
    init: str = "svd",
    *,
    moment: Tensor | None = None,
    ridge: float = 1e-2,
) -> Factors:
    """Best rank-`rank` factors of `weight` (out, in) or (out, in, kh, kw), on its device.

    `svd` (ELR-Diffusion): A = U_k S_k, B = V_k^T, the least Frobenius error (Eckart-Young).
    `data_aware`: the product of least mean squared *output* error on the data summarised in
    `moment` (see `output_basis`), in the form of `svd`.

    Raises DistilleryError for an unknown init, a rank out of range, non-finite weights, or
    `data_aware` without `moment`.
    """
    matrix = weight.detach().flatten(1).double()
    _check(matrix, rank, init, moment)
    if init != "data_aware":
        u, s, vt = truncated_svd(matrix, rank)
        return Factors(u * s, vt)
    basis = output_basis(matrix, moment.to(matrix), rank, ridge)
    u, s, vt = truncated_svd(basis.T @ matrix, rank)
    return Factors(*_fix_signs(basis @ (u * s), vt))


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, rank), S (rank,), V^T (rank, n) of a float64 matrix, largest first, signs fixed."""
    if matrix.shape[0] > matrix.shape[1]:
        v, s, ut = truncated_svd(matrix.T, rank)
        u, vt = _fix_signs(ut.T, v.T)
        return u, s, vt
    u = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)[:, :rank]
    rows = u.T @ matrix
    s = torch.linalg.vector_norm(rows, dim=1)
    u, vt = _fix_signs(u, rows / torch.where(s > 0, s, 1)[:, None])
    return u, s, vt


def singular_values(weight: Tensor) -> Tensor:
    """All singular values of a weight (as `decompose` reshapes it), float64, largest first."""
    matrix = weight.detach().flatten(1).double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()


def output_basis(matrix: Tensor, moment: Tensor, rank: int, ridge: float) -> Tensor:
    """Orthonormal P (out, rank) such that P P^T W has the least mean squared output error.

    min over rank-r W' of E|| (W - W') x ||^2 = || (W - W') L ||_F^2, with L L^T = M = E[x x^T], is
    solved by W' = P P^T W, P the leading left singular vectors of W L: the principal components of
    the outputs y = W x (Zhang et al. 2015, arXiv:1505.06798, section 3; DRONE, NeurIPS 2021;
    SVD-LLM, arXiv:2403.07378). So `moment` is either M (fan_in x fan_in) or W M W^T = E[y y^T]
    (out x out); where out = fan_in it is M.

    `ridge` adds that share of the mean input energy seen by W to every input direction: M + ridge *
    tr(W M W^T) / ||W||_F^2 * I. Directions the sample never visited then keep their plain-SVD
    order, and with no data at all the result is the plain SVD.
    """
    is_output = len(moment) != matrix.shape[1]
    energy = torch.trace(moment) if is_output else ((matrix @ moment) * matrix).sum()
    scale = matrix.square().sum()
    load = ridge * energy / scale if energy > 0 and scale > 0 else 1.0
    if is_output:
        whitened = moment + load * (matrix @ matrix.T)
        return torch.linalg.eigh(whitened).eigenvectors.flip(1)[:, :rank]
    values, vectors = torch.linalg.eigh(moment)
    root = vectors * (values.clamp(min=0) + load).sqrt()
    return torch.linalg.qr(truncated_svd(matrix @ root, rank)[0]).Q


def output_error(matrix: Tensor, factors: Factors, moment: Tensor) -> float | None:
    """Relative RMS output error ||(W - A B) x|| / ||W x|| over the data summarised in `moment`.

    A moment of outputs knows only W x, which suffices where A B is a projection P P^T W, as in
    `svd` and `data_aware`; otherwise, or where W x is always zero, the answer is None.
    """
    product = factors.a @ factors.b
    if len(moment) == matrix.shape[1]:
        rest = matrix - product
        lost, total = (((m @ moment) * m).sum() for m in (rest, matrix))
    else:
        basis = torch.linalg.qr(factors.a).Q
        if not torch.allclose(basis @ (basis.T @ matrix), product, atol=1e-6 * float(matrix.std())):
            return None
        total = torch.trace(moment)
        lost = total - ((moment @ basis) * basis).sum()
    return float((lost.clamp(min=0) / total).sqrt()) if total > 0 else None


def _fix_signs(u: Tensor, vt: Tensor) -> tuple[Tensor, Tensor]:
    """Flip pairs so that the entry of largest magnitude in every column of `u` is positive."""
    signs = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()[0]
    signs = torch.where(signs == 0, 1, signs)
    return u * signs, vt * signs[:, None]


def _check(matrix: Tensor, rank: int, init: str, moment: Tensor | None) -> None:
    if init not in INITS:
        raise DistilleryError(f"init {init!r} is unknown; choose one of {', '.join(INITS)}")
    if not 1 <= rank <= min(matrix.shape):
        raise DistilleryError(f"rank {rank} is outside 1 to {min(matrix.shape)}")
    if not bool(matrix.isfinite().all()):
        raise DistilleryError("the weight holds NaN or infinite values; check the teacher's file")
    if init == "data_aware" and moment is None:
        raise DistilleryError("init data_aware needs the layer's second moment; collect it first")
    if moment is not None and len(moment) not in matrix.shape:
        raise DistilleryError(
            f"a moment of size {len(moment)} does not fit a weight of {tuple(matrix.shape)}; "
            "collect moments for this model"
        )
