"""Which operations a measurement of rounding reaches: in place, with several results, or large."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import normal
from torch import Tensor

from hesspipe.objective import rounding
from hesspipe.objective.rounding import measured_rounding, model_evaluation

EPS = torch.finfo(torch.float64).eps
ROWS = normal(5, 4, seed=3).abs() + 0.5


def rounding_of(evaluate: Callable[[], Tensor]) -> float:
    return float(measured_rounding(evaluate, evaluate(), torch.Tensor.norm, "the result"))


IN_PLACE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "exponential": (Tensor.exp_, torch.exp),
    "product": (lambda x: x.mul_(1.1), lambda x: x * 1.1),
    "quotient": (lambda x: x.div_(3.0), lambda x: x / 3.0),
    "sum": (lambda x: x.add_(0.1), lambda x: x + 0.1),
    "root": (Tensor.sqrt_, torch.sqrt),
    "matrix product": (
        lambda x: x.addmm_(ROWS[:, :2], ROWS[:2]), lambda x: x + ROWS[:, :2] @ ROWS[:2],
    ),
    "given result": (
        lambda x: torch.mul(x, 1.1, out=torch.empty_like(x)), lambda x: x * 1.1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_operation_in_place_has_the_rounding_of_the_one_that_is_not(name: str) -> None:
    in_place, plain = IN_PLACE[name]
    found, expected = rounding_of(lambda: in_place(ROWS.clone())), rounding_of(lambda: plain(ROWS))
    assert expected > 0
    assert expected / 8 <= found <= 8 * expected


SEVERAL: dict[str, Callable[[Tensor], Tensor]] = {
    "eigenvalues and vectors": lambda x: torch.linalg.eigh(x.T @ x).eigenvalues,
    "variance and mean": lambda x: torch.stack(torch.var_mean(x, 1)),
    "factors": lambda x: torch.linalg.qr(x).R.abs(),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_operation_with_several_results_has_rounding_in_each(name: str) -> None:
    evaluate = SEVERAL[name]
    size = float(evaluate(ROWS).norm())
    assert EPS * size / 10 <= rounding_of(lambda: evaluate(ROWS)) <= 1e4 * EPS * size


# Zeros without memory, which forward mode returns where nothing depends on the input.
@pytest.mark.parametrize(
    "change",
    [
        torch.add, torch.mul, torch.sub, torch.div, torch.rsub, torch.pow,
        torch.ops.aten.add.Scalar, torch.ops.aten.mul.Scalar,
    ],
)  # fmt: skip
def test_zeros_without_memory_have_the_rounding_of_others(change: Callable[..., Tensor]) -> None:
    zeros = torch._efficientzerotensor((5, 4), dtype=torch.float64)
    found = rounding_of(lambda: (change(zeros, 1.5) + ROWS).exp())
    expected = rounding_of(lambda: (change(torch.zeros_like(ROWS), 1.5) + ROWS).exp())
    assert expected > 0
    assert expected / 8 <= found <= 8 * expected


@pytest.mark.parametrize("count", [1, 131_070, 131_071, 131_072, 400_000])
def test_result_of_any_size_is_perturbed_throughout(count: int) -> None:
    """Its random factors are read from a ring, which is repeated for larger results."""
    ones = torch.ones(count, dtype=torch.float64)
    parts = measured_rounding(lambda: ones * 1.5, ones * 1.5, torch.abs, "it")
    assert parts.shape == (count,)
    assert float((parts > 0).double().mean()) > 0.99
    assert float(parts.max()) <= 1.01 * rounding.SAFETY * 1.5 * EPS
    if count > 1:
        assert float(parts.max()) >= 0.99 * rounding.SAFETY * 1.5 * EPS


def test_model_evaluation_inside_another_ends_with_the_outer_one() -> None:
    seen: list[bool] = []

    def evaluate() -> Tensor:
        active = rounding._Perturbation.active
        with model_evaluation():
            with model_evaluation():
                pass
            seen.extend(each.is_in_model for each in active)
        seen.extend(not each.is_in_model for each in active)
        return ROWS * 1.1

    rounding_of(evaluate)
    assert len(seen) >= 4
    assert all(seen)


def test_mark_of_the_model_ends_with_an_error() -> None:
    def fail() -> None:
        with model_evaluation():
            raise ArithmeticError("of the model")

    with rounding._Perturbation(1.0, 0, "everything", False) as perturbation:
        with pytest.raises(ArithmeticError):
            fail()
        assert not perturbation.is_in_model
    assert not rounding._Perturbation.active


@pytest.mark.parametrize("scope", ["everything", "loss", "derivatives"])
def test_scope_says_which_operations_are_perturbed(scope: rounding.Scope) -> None:
    leaf = ROWS.clone().requires_grad_()
    with rounding._Perturbation(2.0**8, 0, scope, False):
        with model_evaluation():
            outputs = leaf * 1.1
        loss = (outputs.detach() * 1.3).sum()
        with model_evaluation():
            again = leaf * 1.1 * 1.3
        (slope,) = torch.autograd.grad(again.sum(), leaf)
    changed = [
        not torch.equal(outputs, ROWS * 1.1),
        not torch.equal(loss, (outputs.detach() * 1.3).sum()),
        not torch.equal(slope, torch.ones_like(ROWS) * 1.3 * 1.1),
    ]
    assert changed == [scope == "everything", scope != "derivatives", True]


@pytest.mark.parametrize("is_inward", [False, True])
def test_inward_perturbations_decrease_and_others_do_both(is_inward: bool) -> None:
    ones = torch.ones(10_000, dtype=torch.float64)
    with rounding._Perturbation(2.0**8, 0, "everything", is_inward):
        change = (ones * 1.0 - 1) / (2.0**8 * EPS)
    low, high = (-1.0, 0.0) if is_inward else (-1.0, 1.0)
    assert abs(float(change.min()) - low) < 0.05
    assert abs(float(change.max()) - high) < 0.05
    assert abs(float(change.mean()) - (low + high) / 2) < 0.05
