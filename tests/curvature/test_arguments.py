"""What the public functions take in place of an objective, and what operators multiply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, assert_close, labels, network, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature.operators import OPERATORS
from hesspipe.objective.objective import Objective

BLOCKS = {
    "a layer": slice(20, 25),
    "parts of parameters": slice(3, 22),
    "every third entry": slice(0, None, 3),
}


@pytest.fixture
def objective() -> Objective:
    data = normal(9, 4), labels(9, 3)
    return Objective(network([4, 5, 3], "tanh"), nn.CrossEntropyLoss(), data, weight_decay=0.1)


def members(objective: Objective, name: str) -> Tensor:
    is_member = torch.zeros(objective.num_parameters, dtype=torch.bool)
    is_member[BLOCKS[name]] = True
    return is_member


@pytest.mark.parametrize("matrix", OPERATORS)
def test_spectrum_of_an_operator_is_that_of_its_matrix(matrix: str, objective: Objective) -> None:
    operator = OPERATORS[matrix](objective)
    found, expected = hesspipe.spectrum(operator), hesspipe.spectrum(objective, matrix)
    assert torch.equal(found.eigenvalues, expected.eigenvalues)
    assert (found.matrix, found.method) == (matrix, expected.method)
    dense = getattr(hesspipe, f"{matrix}_matrix")
    assert torch.equal(dense(operator), dense(objective))
    assert hesspipe.spectrum(operator, matrix).matrix == matrix


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("matrix", OPERATORS)
def test_spectrum_of_a_block_is_that_of_the_submatrix(
    matrix: str, block: str, objective: Objective
) -> None:
    whole = getattr(hesspipe, f"{matrix}_matrix")(objective)
    is_member = members(objective, block)
    expected = torch.linalg.eigvalsh(whole[is_member][:, is_member])
    found = hesspipe.spectrum(hesspipe.DiagonalBlock(OPERATORS[matrix](objective), is_member))
    error = float((found.eigenvalues - expected).abs().max())
    assert error <= 20 * EPS * float(whole.norm())
    assert error <= found.error_bound
    assert found.method == ("columns" if block == "a layer" else "products")


def test_spectrum_of_a_block_of_a_block_is_that_of_the_inner_one(objective: Objective) -> None:
    outer = hesspipe.DiagonalBlock(
        hesspipe.HessianOperator(objective), members(objective, "parts of parameters")
    )
    is_member = torch.arange(outer.shape[0]) % 2 == 0
    expected = hesspipe.hessian_matrix(objective)[3:22, 3:22][::2, ::2]
    found = hesspipe.spectrum(hesspipe.DiagonalBlock(outer, is_member))
    assert_close(found.eigenvalues, torch.linalg.eigvalsh(expected))


@pytest.mark.parametrize("convert", [Tensor.clone, Tensor.numpy])
def test_spectrum_of_a_matrix_is_its_own(convert: Callable[[Tensor], Any]) -> None:
    matrix = torch.diag(torch.tensor([-1.0, 0.0, 2.0, 3.0], dtype=torch.float64))
    found = hesspipe.spectrum(convert(matrix))
    assert torch.equal(found.eigenvalues, matrix.diagonal())
    assert (found.num_negative, found.num_zero, found.num_positive) == (1, 1, 2)
    with pytest.raises(ValueError, match="method must be 'auto' for an operator"):
        hesspipe.spectrum(convert(matrix), method="columns")


def test_name_of_another_matrix_than_the_operators_is_refused(objective: Objective) -> None:
    operator = hesspipe.GGNOperator(objective)
    block = hesspipe.DiagonalBlock(operator, members(objective, "a layer"))
    matrix = torch.eye(3, dtype=torch.float64)
    functions: list[Callable[..., Any]] = [
        hesspipe.spectrum,
        hesspipe.eigenpairs,
        hesspipe.density,
        hesspipe.estimate_norms,
    ]
    for function in functions:
        for argument in (operator, block, matrix):
            with pytest.raises(ValueError, match=r"matrix must be .*, got 'hessian'"):
                function(argument, "hessian")
    with pytest.raises(ValueError, match="matrix must be that of the operator, 'ggn', got 'hess"):
        hesspipe.hessian_matrix(operator)
    with pytest.raises(ValueError, match="must be one of 'hessian', 'ggn', 'residual', got 'hes"):
        hesspipe.spectrum(objective, "hesian")


NEITHER = {
    "model": nn.Linear(2, 2),
    "nothing": None,
    "dictionary": {"x": torch.ones(2)},
    "data": (torch.ones(2, 2), torch.ones(2)),
    "name": "hessian",
    "class": Objective,
}


@pytest.mark.parametrize("name", NEITHER)
@pytest.mark.parametrize(
    "function",
    [
        hesspipe.spectrum,
        hesspipe.hessian_matrix,
        hesspipe.ggn_matrix,
        hesspipe.residual_matrix,
        hesspipe.HessianOperator,
        hesspipe.eigenpairs,
        hesspipe.density,
        hesspipe.estimate_norms,
    ],
)
def test_what_is_neither_objective_nor_operator_is_refused(
    function: Callable[..., Any], name: str
) -> None:
    kind = type(NEITHER[name]).__name__
    with pytest.raises(TypeError, match=rf"(objective|operator) must .*{kind}"):
        function(NEITHER[name])


@pytest.mark.parametrize("name", NEITHER)
def test_block_of_what_is_no_operator_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="operator must have shape, dtype, device and @"):
        hesspipe.DiagonalBlock(NEITHER[name], torch.ones(2, dtype=torch.bool))


def test_block_of_members_in_a_list_is_refused(objective: Objective) -> None:
    operator = hesspipe.HessianOperator(objective)
    with pytest.raises(TypeError, match=r"is_member must be 43 booleans in a tensor, got list"):
        hesspipe.DiagonalBlock(operator, [True] * 43)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="operator must be square and of floating point"):
        hesspipe.DiagonalBlock(torch.eye(3, dtype=torch.long), torch.ones(3, dtype=torch.bool))


_SIZE = 43
_REAL = np.arange(_SIZE) % 5 - 2.0
MULTIPLIED = {
    "integers": _REAL.astype(int),
    "single precision": _REAL.astype(np.float32),
    "other byte order": _REAL.astype(">f8"),
    "backwards": np.repeat(_REAL, 2)[::-2][::-1],
    "read-only": np.broadcast_to(_REAL, (_SIZE,)),
    "not contiguous": torch.tensor(_REAL).repeat(2, 1).T[:, 0],
    "parameter": nn.Parameter(torch.tensor(_REAL)),
}
REFUSED = {
    "complex array": (_REAL + 1j, "must be real numbers, got dtype complex128"),
    "complex": (torch.tensor(_REAL + 1j), "must be torch.float64 on cpu.*got torch.complex128"),
    "objects": (np.array([None] * _SIZE), "must be real numbers, got dtype object"),
    "masked": (np.ma.masked_less(_REAL, 0), "must be real numbers, got a masked array"),
    "integers": (torch.ones(_SIZE, dtype=torch.long), "must be torch.float64.*got torch.int64"),
    "sparse": (torch.tensor(_REAL).to_sparse(), "must be torch.float64.*sparse or nested"),
    "number": (np.array(1.0), r"must have shape \(43,\) or \(43, K\), got \(\)"),
    "three dimensions": (torch.ones(_SIZE, 1, 1), r"must have shape .*, got \(43, 1, 1\)"),
    "short": (torch.ones(3), r"must have shape \(43,\) or \(43, K\), got \(3,\)"),
    "no number": (torch.tensor(_REAL) / 0, "vectors must be finite, got nan or inf"),
}


@pytest.mark.parametrize("is_block", [False, True])
@pytest.mark.parametrize("name", MULTIPLIED)
def test_operator_multiplies_real_vectors_of_any_form(
    name: str, is_block: bool, objective: Objective
) -> None:
    operator: Any = hesspipe.HessianOperator(objective)
    if is_block:
        operator = hesspipe.DiagonalBlock(operator, torch.ones(_SIZE, dtype=torch.bool))
    vectors = MULTIPLIED[name]
    found = operator @ vectors
    assert isinstance(found, np.ndarray) == isinstance(vectors, np.ndarray)
    expected = hesspipe.hessian_matrix(objective) @ torch.tensor(_REAL)
    assert_close(torch.as_tensor(found), expected)
    empty = operator @ torch.zeros(_SIZE, 0, dtype=torch.float64)
    assert empty.shape == (_SIZE, 0)


@pytest.mark.parametrize("is_block", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_operator_refuses_what_are_no_real_vectors(
    name: str, is_block: bool, objective: Objective
) -> None:
    operator: Any = hesspipe.HessianOperator(objective)
    if is_block:
        operator = hesspipe.DiagonalBlock(operator, torch.ones(_SIZE, dtype=torch.bool))
    vectors, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        operator @ vectors
    with pytest.raises(TypeError, match="vectors must be a tensor or a NumPy array, got list"):
        operator @ list(_REAL)
