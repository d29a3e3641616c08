"""Blocks of H, G and R: whole parameters, parts of them, and blocks of blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from problems import EPS, labels, network, normal
from torch import nn

import hesspipe
from hesspipe.curvature import operators
from hesspipe.curvature.blocks_of_objectives import find_block
from hesspipe.curvature.diagonal_blocks import DiagonalBlock
from hesspipe.curvature.operators import OPERATORS
from hesspipe.objective.objective import Objective

DATA = normal(9, 4), labels(9, 3)
# Entries of theta, of 20 + 5 + 15 + 3, and the parameters that have a member.
BLOCKS: dict[str, tuple[list[int], list[str]]] = {
    "a weight": ([*range(20)], ["1.weight"]),
    "a bias": ([40, 41, 42], ["3.bias"]),
    "parameters apart": ([*range(20), *range(40, 43)], ["1.weight", "3.bias"]),
    "one entry": ([30], ["3.weight"]),
    "entries apart": ([3, 7, 24, 42], ["1.weight", "1.bias", "3.bias"]),
    "everything": ([*range(43)], ["1.weight", "1.bias", "3.weight", "3.bias"]),
}


@pytest.fixture
def objective() -> Objective:
    batches = list(zip(DATA[0].split(4), DATA[1].split(4), strict=True))
    model = network([4, 5, 3], "tanh")
    return Objective(model, nn.CrossEntropyLoss(), batches, weight_decay=0.1)


@pytest.mark.parametrize("matrix", OPERATORS)
@pytest.mark.parametrize("name", BLOCKS)
def test_every_function_of_a_block_is_that_of_the_submatrix(
    name: str, matrix: str, objective: Objective
) -> None:
    rows, names = BLOCKS[name]
    is_member = torch.zeros(43, dtype=torch.bool)
    is_member[rows] = True
    block = DiagonalBlock(OPERATORS[matrix](objective), is_member)  # type: ignore[index]
    values = getattr(hesspipe, f"{matrix}_matrix")(objective, "columns")[rows][:, rows]
    allowed = 50 * EPS * float(hesspipe.hessian_matrix(objective).norm())
    expected = torch.linalg.eigvalsh(values)
    spectrum = hesspipe.spectrum(block)
    assert (spectrum.eigenvalues - expected).abs().max() <= max(allowed, spectrum.error_bound)
    assert spectrum.error_bound <= 1e4 * EPS
    found: Any = find_block(block)
    assert found.objective.names == names
    assert found.operator.shape == block.shape
    assert found.has_whole_parameters == (len(rows) == found.objective.num_parameters)
    pairs = hesspipe.eigenpairs(block, num_largest=1)
    assert abs(pairs.eigenvalues[0] - expected[-1]) <= allowed
    residual = values @ pairs.eigenvectors[:, 0] - expected[-1] * pairs.eigenvectors[:, 0]
    assert residual.norm() <= 1e-7 * max(float(expected.abs().max()), allowed)
    nodes = hesspipe.density(block, num_steps=len(rows)).nodes
    assert abs(float(nodes.max() - expected[-1])) <= 1e3 * allowed
    trace = hesspipe.estimate_norms(block, num_products=max(6, len(rows))).trace
    assert abs(trace.value - float(expected.sum())) <= max(1e3 * allowed, 8 * trace.standard_error)


def test_products_of_a_block_differentiate_by_its_parameters_only(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = operators.BatchProduct

    def watched(part: Objective, *rest: Any, **options: Any) -> Any:
        sizes.append(part.num_parameters)
        return original(part, *rest, **options)

    monkeypatch.setattr(operators, "BatchProduct", watched)
    inner = torch.arange(23) >= 20
    outer = torch.tensor([True] * 20 + [False] * 20 + [True] * 3)
    block = DiagonalBlock(DiagonalBlock(hesspipe.HessianOperator(objective), outer), inner)
    hesspipe.eigenpairs(block, num_largest=1)
    assert set(sizes) == {3}
    assert block.places.tolist() == [40, 41, 42]


def test_spectrum_of_a_block_takes_the_methods_of_an_objective(objective: Objective) -> None:
    is_layer = torch.arange(43) >= 25
    block = DiagonalBlock(hesspipe.GGNOperator(objective), is_layer)
    found = hesspipe.spectrum(block, "ggn", "columns")
    part = Objective(
        network([4, 5, 3], "tanh"), nn.CrossEntropyLoss(), DATA, parameters=["3.*"],
        weight_decay=0.1,
    )  # fmt: skip
    assert (found.matrix, found.method) == ("ggn", "columns")
    expected = hesspipe.spectrum(part, "ggn").eigenvalues
    assert (found.eigenvalues - expected).abs().max() <= 50 * EPS * float(expected.max())
    with pytest.raises(ValueError, match="method must be 'auto' for an operator"):
        hesspipe.spectrum(DiagonalBlock(block, torch.arange(18) < 4), method="columns")
    with pytest.raises(ValueError, match=r"matrix must be .*, got 'hessian' for 'ggn'"):
        hesspipe.spectrum(block, "hessian")


@pytest.mark.parametrize("size", [18, 4])
def test_spectrum_of_a_block_in_float32_is_refused(size: int) -> None:
    model = network([4, 5, 3], "tanh").float()
    single = Objective(model, nn.CrossEntropyLoss(), DATA, dtype=torch.float32)
    block = DiagonalBlock(hesspipe.HessianOperator(single), torch.arange(43) >= 43 - size)
    with pytest.raises(ValueError, match=r"float64 to count signs, got torch.float32"):
        hesspipe.spectrum(block)


def test_block_of_an_operator_of_another_kind_has_no_objective() -> None:
    block = DiagonalBlock(torch.eye(3, dtype=torch.float64), torch.arange(3) < 2)
    assert find_block(block) is None
    assert torch.equal(hesspipe.spectrum(block).eigenvalues, torch.ones(2, dtype=torch.float64))


def test_density_of_a_block_that_is_rounding_alone_is_not_called_asymmetric() -> None:
    # The probabilities are 0 and 1: p - p p^T cancels in the products.
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))
    model = nn.Linear(4, 3).double()
    with torch.no_grad():
        model.weight.mul_(1e3)
    part = Objective(model, nn.CrossEntropyLoss(), (inputs, targets), parameters=["bias"])
    found = hesspipe.density(part, num_steps=3)
    assert found.dim == 3
    assert float(found.nodes.abs().max()) <= 1e-10
