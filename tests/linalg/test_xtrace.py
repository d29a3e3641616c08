"""XTrace against its definition, and its error bars against the errors that were made."""

from __future__ import annotations

import math

import pytest
import torch
from problems import EPS, matrix_with, normal
from torch import Tensor

from hesspipe.linalg.trace import NormEstimates, estimate_norms
from hesspipe.linalg.xtrace import Sketch, estimate, sketch

DECAY = 0.8 ** torch.arange(120, dtype=torch.float64)
SPECTRA: dict[str, Tensor] = {
    "decay": DECAY,
    "both signs": torch.cat([torch.linspace(-1, 1, 112), torch.linspace(5, 20, 8)]).double(),
    "flat": torch.linspace(-3, 5, 120).double(),
}


def reduced(matrix: Tensor, vectors: Tensor) -> Sketch:
    images = matrix @ vectors
    basis = torch.linalg.qr(images).Q
    return sketch(vectors, images, basis, matrix @ basis)


def vectors_of(size: int, count: int, seed: int) -> Tensor:
    draw = normal(size, count, seed=seed)
    return draw / draw.norm(dim=0) * size**0.5


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("count", [2, 3, 11])
def test_estimates_are_those_of_the_bases_without_each_vector(name: str, count: int) -> None:
    matrix, vectors = matrix_with(SPECTRA[name]), vectors_of(120, count, seed=4)
    traces, squares = reduced(matrix, vectors).estimates()
    norm = float(SPECTRA[name].norm())
    for index in range(count):
        others = vectors[:, [each for each in range(count) if each != index]]
        basis = torch.linalg.qr(matrix @ others).Q
        rest = vectors[:, index] - basis @ (basis.T @ vectors[:, index])
        rest = rest * math.sqrt((120 - count + 1) / float(rest.square().sum()))
        trace = (basis.T @ matrix @ basis).trace() + rest @ matrix @ rest
        square = (matrix @ basis).square().sum() + (matrix @ rest).square().sum()
        assert abs(float(traces[index] - trace)) <= 1e5 * EPS * 120 * norm
        assert abs(float(squares[index] - square)) <= 1e5 * EPS * 120 * norm**2


def test_without_is_the_sketch_of_the_other_vectors() -> None:
    matrix, vectors = matrix_with(SPECTRA["both signs"]), vectors_of(120, 7, seed=5)
    whole = reduced(matrix, vectors)
    for index in (0, 3, 6):
        kept = [each for each in range(7) if each != index]
        for one, other in zip(
            whole.without(index).estimates(),
            reduced(matrix, vectors[:, kept]).estimates(),
            strict=True,
        ):
            assert (one - other).abs().max() <= 1e5 * EPS * other.abs().max()


def repeat(name: str, num_products: int, count: int) -> list[NormEstimates]:
    matrix = matrix_with(SPECTRA[name])
    return [estimate_norms(matrix, num_products=num_products, seed=seed) for seed in range(count)]


@pytest.mark.parametrize("num_products", [12, 30])
@pytest.mark.parametrize("name", SPECTRA)
def test_error_bars_are_neither_too_small_nor_doubled(name: str, num_products: int) -> None:
    """Also of the Frobenius norm itself: twice the bar would hold more than nearly all."""
    found, values = repeat(name, num_products, 60), SPECTRA[name]
    for exact, estimates in (
        (float(values.sum()), [each.trace for each in found]),
        (float(values.norm()), [each.frobenius_norm for each in found]),
    ):
        errors = torch.tensor([each.value - exact for each in estimates])
        bars = torch.tensor([each.standard_error for each in estimates])
        assert (errors.abs() <= 3 * bars).double().mean() >= 0.9
        assert errors.square().mean() > 0.3 * bars.square().mean() or name == "decay"
        assert abs(errors.mean()) <= 4 * errors.std() / math.sqrt(len(errors)) + 0.05 * abs(exact)


@pytest.mark.parametrize("name", ["both signs", "flat"])
def test_frobenius_norm_has_the_error_of_its_square_to_first_order(name: str) -> None:
    for each in repeat(name, 60, 3):
        square, norm = each.squared_frobenius_norm, each.frobenius_norm
        assert norm.value == pytest.approx(math.sqrt(square.value), rel=10 * EPS)
        first_order = square.standard_error / (2 * norm.value)
        relative = square.standard_error / square.value
        assert first_order <= norm.standard_error <= first_order * (1 + relative)


def test_few_products_are_used_better_than_by_separate_averages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = float(DECAY.sum())
    errors = {}
    for first in (6, 60):  # of Hutch++
        monkeypatch.setattr("hesspipe.linalg.trace._HUTCH_FROM", first)
        found = repeat("decay", 30, 60)
        errors[first] = torch.tensor([each.trace.value - exact for each in found]).square().mean()
    assert errors[60] < errors[6] / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 4])
def test_operator_of_a_rank_below_the_number_of_vectors_is_exact(
    rank: int, dtype: torch.dtype
) -> None:
    values = torch.zeros(120, dtype=torch.float64)
    values[:rank] = torch.tensor([3.0, -1.0, 2.0, 5.0][:rank], dtype=torch.float64)
    matrix = matrix_with(values, dtype)
    eps = torch.finfo(dtype).eps
    found = estimate_norms(matrix, num_products=20)
    assert abs(found.trace.value - float(values.sum())) <= 1e3 * eps
    assert abs(found.frobenius_norm.value - float(values.norm())) <= 1e3 * eps
    assert found.num_products == 20
    vectors = vectors_of(120, 10, seed=1).to(dtype)
    trace, square = estimate(reduced(matrix, vectors), eps)
    assert max(trace[1], square[1]) <= 1e5 * eps
