"""Parts of the checks that only unusual models and losses reach."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import labels, network, normal
from torch import Tensor, nn
from torch.utils import checkpoint

from hesspipe.errors import NotASumOverSamplesError, NotTwiceDifferentiableError
from hesspipe.objective import (
    batches,
    differentiability,
    finite_differences,
    special_points,
    symmetry,
)
from hesspipe.objective.determinism import _is_same
from hesspipe.objective.explanations import is_of_hesspipe
from hesspipe.objective.finite_differences import (
    _noise,
    _row_of_loss,
    _value_and_slopes,
    compare,
    find_wrong_first_derivative,
    find_wrong_second_derivative,
)
from hesspipe.objective.finiteness import require_finite_matrix
from hesspipe.objective.flat_model import signature_of
from hesspipe.objective.kernels import twice_differentiable_kernels
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import Outcome, Piece, outcome, row_norms
from hesspipe.objective.rounding import _samples
from hesspipe.objective.separability import _change
from hesspipe.objective.target_shapes import _aligned, _is_mixed

CPU = torch.device("cpu")


def piece(model: Callable[..., Any], loss: Callable[[Any], Tensor], has_rows: bool = True) -> Piece:
    return Piece(model, loss, normal(5, 3), has_rows, batch=2, first=10)


def linear(theta: Tensor, inputs: Any) -> Tensor:
    return inputs @ theta.view(3, 2)


THETA = normal(6, seed=7)
VARIED = torch.ones(6, dtype=torch.bool)


# --- numbers that are compared -------------------------------------------------------------------


@pytest.mark.parametrize("step", [1e-2, 1.0])
def test_compare_gives_the_difference_to_the_mean_of_both_sides(step: float) -> None:
    """t^2 + 3 t has the slope 2 t + 3, and one-sided differences that differ by 2 h."""
    points = torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64)

    def values(at: Tensor) -> Tensor:
        return at * at + 3 * at

    slopes, wrong = 2 * points + 3, torch.tensor([[0.0, 0.0], [0.5, -0.5]])
    sides = values(points - step), values(points), values(points + step)
    found = compare(slopes + wrong, *sides, step)
    assert (found.defect + wrong).abs().max() <= 1e-10
    assert torch.allclose(found.size, row_norms(slopes + wrong).maximum(row_norms(slopes)))
    spread = 2 * step * math.sqrt(2)
    is_large = 0.5 * math.sqrt(2) * 0.5 > spread
    assert found.is_wrong.tolist() == [False, is_large]
    assert found.is_unclear.tolist() == [False, not is_large]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outcome_does_not_judge_what_is_not_finite(bad: float) -> None:
    ones = torch.ones(3, 2, dtype=torch.float64)
    defect, spread = ones.clone(), 0.0 * ones
    defect[0], spread[1] = bad, bad
    found = outcome(defect, spread, torch.ones(3), torch.full((3,), 1e-6))
    assert found.is_wrong.tolist() == [False, False, True]
    assert not found.is_unclear.any()


@pytest.mark.parametrize(("change", "persists"), [(0.0, True), (0.15, True), (0.3, False)])
def test_persists_needs_two_errors_that_are_nearly_equal(change: float, persists: bool) -> None:
    def wrong_by(size: float, is_wrong: bool = True) -> Outcome:
        defect = torch.tensor([[size, 0.0]])
        return Outcome(torch.tensor([is_wrong]), torch.tensor([False]), defect, torch.ones(1))

    assert wrong_by(1.0).persists(wrong_by(1.0 + change)).tolist() == [persists]
    assert wrong_by(1.0 + change).persists(wrong_by(1.0)).tolist() == [persists]
    for one, other in ((True, False), (False, True), (False, False)):
        assert not wrong_by(1.0, one).persists(wrong_by(1.0, other)).any()


def test_row_norms_of_rows_without_entries_are_zero() -> None:
    assert row_norms(torch.zeros(4, 0)).tolist() == [0, 0, 0, 0]
    rows = torch.tensor([[3e-200, 4e-200], [3e200, 4e200], [0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(
        row_norms(rows), torch.tensor([5e-200, 5e200, 0.0], dtype=torch.float64), rtol=1e-15, atol=0
    )


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (torch.zeros(3), torch.zeros(4), False),
        (torch.zeros(1, 3), torch.zeros(3), False),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), True),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), False),
        (torch.tensor([True]), torch.tensor([False]), False),
        (torch.zeros(0, 2), torch.zeros(0, 2), True),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), True),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, math.inf]), True),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.5, math.inf]), False),
        (torch.tensor([1.0, 1e6]), torch.tensor([1.0 + 1e-9, 1e6]), True),
        (torch.tensor([1.0]), torch.tensor([1.01]), False),
    ],
)
def test_two_evaluations_are_the_same_up_to_rounding(
    one: Tensor, other: Tensor, is_same: bool
) -> None:
    assert _is_same(one, other, torch.float32) == is_same
    assert _is_same(other, one, torch.float32) == is_same


@pytest.mark.parametrize(
    ("expected", "found", "change"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), 0.0),
        (torch.zeros(2, 1), torch.tensor([0.0, 0.5]), 0.5),
        (torch.zeros(2, 3), torch.zeros(2, 5), 0.0),  # padded to the longest
        (torch.zeros(2, 3), torch.cat([torch.zeros(2, 2), torch.ones(2, 3)], 1), 1.0),
        (torch.zeros(2, 3), torch.zeros(3, 4), math.inf),
        (torch.zeros(2, 3), torch.zeros(2, 2, 2), math.inf),
        (torch.zeros(2, 0), torch.zeros(2, 4), 0.0),
        (torch.zeros(0), torch.zeros(0), 0.0),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), 0.0),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), math.inf),
        (torch.tensor([math.nan, 1.0]), torch.tensor([math.nan, 1.5]), 0.5),
        (torch.tensor([1.0]), torch.tensor([math.nan]), math.inf),
        (torch.tensor([math.inf]), torch.tensor([math.inf]), 0.0),
    ],
)
def test_change_is_the_largest_difference_where_both_are_defined(
    expected: Tensor, found: Tensor, change: float
) -> None:
    assert _change(expected, found) == change


# --- functions without derivatives ---------------------------------------------------------------


def test_derivatives_of_what_does_not_depend_on_the_parameters_are_zero() -> None:
    constant = piece(lambda theta, inputs: inputs[:, :2], lambda rows: torch.tensor(2.0).double())
    assert find_wrong_first_derivative(constant, THETA, VARIED, with_slopes=True) is None
    rows = normal(5, 2)
    value, slopes, curved = _value_and_slopes(constant.loss, rows, rows)
    assert float(value) == 2.0
    assert torch.equal(slopes, torch.zeros_like(rows))
    assert torch.equal(curved, torch.zeros_like(rows))  # type: ignore[arg-type]
    assert _value_and_slopes(constant.loss, rows, None)[2] is None
    assert special_points.find_special_point([constant], THETA, VARIED) is None
    differentiability._refuse_wrong_curvature(constant, THETA, THETA, "")


def test_derivatives_of_outputs_that_are_no_tensors_are_those_of_the_loss() -> None:
    words = piece(
        lambda theta, inputs: {"words": ["a"], "values": linear(theta, inputs)},
        lambda outputs: outputs["values"].square().sum(),
        has_rows=False,
    )
    rows, loss_of = words.evaluate(THETA)
    assert rows.shape == (1, 1)
    assert float(rows) == float(loss_of(rows)) == float(words.value(THETA))
    assert find_wrong_first_derivative(words, THETA, VARIED, with_slopes=True) is None
    assert words.name(0) == "batch 2"
    assert piece(linear, torch.sum).name(3) == "sample 13 of batch 2"


@pytest.mark.parametrize("module", [finite_differences, special_points])
def test_rounding_that_cannot_be_measured_hides_no_error(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Tensor:
        raise ValueError("not continuous")

    monkeypatch.setattr(module, "measured_rounding", fail)
    if module is finite_differences:
        assert _noise(lambda: normal(4, 2)).tolist() == [0] * 4
    else:
        smooth = piece(linear, lambda rows: rows.pow(3).sum())
        for kind, count in (("curvature", 5), ("slopes", 5), ("product", 1)):
            found = special_points._noise([smooth], THETA, THETA, kind, 0)
            assert found.tolist() == [0] * count


def test_rounding_of_a_product_that_cannot_be_measured_excuses_no_asymmetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smooth = piece(linear, lambda rows: rows.pow(3).sum())
    assert 0 < symmetry._rounding_of_product([smooth], THETA, THETA) < 1e-9

    def fail(*_: Any) -> Tensor:
        raise ValueError("not continuous")

    monkeypatch.setattr(symmetry, "measured_rounding", fail)
    assert symmetry._rounding_of_product([smooth], THETA, THETA) == 0


def test_rounding_passes_on_that_memory_is_out() -> None:
    def evaluate() -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        _samples(evaluate, torch.ones(1), lambda change: change, "everything", "it")


class _WrongSlope(torch.autograd.Function):
    """The square, with a derivative that is wrong where a mask says so."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(rows, mask)
        return rows.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rows, mask = ctx.saved_tensors
        return gradients[0] * (2 + 0.5 * mask) * rows, None


@pytest.mark.parametrize("row", range(5))
def test_wrong_slope_of_the_loss_is_found_at_its_sample(row: int) -> None:
    mask = torch.zeros(5, 1, dtype=torch.float64)
    mask[row] = 1.0
    wrong = piece(linear, lambda rows: _WrongSlope.apply(rows, mask).sum())  # type: ignore[no-untyped-call]
    found = find_wrong_first_derivative(wrong, THETA, VARIED, with_slopes=False)
    assert found is not None
    assert (found.kind, found.place) == ("loss", f"sample {10 + row} of batch 2")


def test_sample_of_a_wrong_slope_is_the_first_where_no_other_point_is_defined() -> None:
    def only_here(theta: Tensor, inputs: Any) -> Tensor:
        if not torch.equal(theta.detach(), THETA):
            raise ValueError("outside")
        return linear(theta, inputs)

    assert _row_of_loss(piece(only_here, torch.sum), THETA, THETA, 1e-3) == 0
    assert (
        find_wrong_first_derivative(piece(only_here, torch.sum), THETA, VARIED, with_slopes=True)
        is None
    )


def test_second_derivative_is_not_judged_where_no_side_is_defined() -> None:
    def scalar(theta: Tensor) -> Tensor:
        if not torch.equal(theta.detach(), THETA):
            raise ValueError("outside")
        return theta.pow(3).sum()

    assert find_wrong_second_derivative([scalar], THETA, THETA, 6 * THETA**2, "all") is None


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_second_derivative_is_compared_with_differences_of_the_gradient(factor: float) -> None:
    scalars = [
        lambda theta: theta.pow(3).sum(),
        lambda theta: theta.sum() * 0,
        lambda _: torch.ones(1),
    ]
    product = factor * 6 * THETA * THETA
    found = find_wrong_second_derivative(scalars, THETA, THETA, product, "all the data")
    assert (found is None) == (factor == 1.0)
    if found is not None:
        error = float((product - product / factor).norm())
        assert found.error == pytest.approx(error, rel=1e-3)
        assert found.size == pytest.approx(float(product.norm()), rel=1e-3)
        assert (found.kind, found.place) == ("gradient", "all the data")


class _Cosine(torch.autograd.Function):
    """A function whose derivative was not written."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return rows.cos()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("the derivative was not written")


class _Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows.sin()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        slopes: Tensor = _Cosine.apply(ctx.saved_tensors[0])  # type: ignore[no-untyped-call]
        return gradients[0] * slopes


class _SineModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2).double()

    def forward(self, inputs: Tensor) -> Tensor:
        return _Sine.apply(self.linear(inputs))  # type: ignore[no-untyped-call, no-any-return]


def test_function_that_raises_in_its_second_derivative_is_named() -> None:
    with pytest.raises(NotTwiceDifferentiableError, match=r"an error with .*_Sine.*not written"):
        Objective(_SineModel(), nn.MSELoss(), (normal(5, 3), normal(5, 2)))


# --- data, denominators and parts ----------------------------------------------------------------


@pytest.mark.parametrize("between", [1, 24, 120, 200, 10**9])
def test_forecasts_of_the_data_add_up_to_what_was_read(
    between: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(batches, "require", lambda number, *_, **__: asked.append(number))
    monkeypatch.setattr(batches, "_BYTES_BETWEEN_FORECASTS", between)
    data = [(torch.zeros(n, 2), torch.zeros(n, dtype=torch.long)) for n in (1, 4, 2, 8, 1)]
    batches.read_batches(data, torch.float64, CPU)
    sizes, expected, waiting = [24 * n for n in (1, 4, 2, 8, 1)], [], 0
    for size in sizes:
        waiting += size
        if waiting >= between:
            expected.append(waiting)
            waiting = 0
    assert asked == expected


@functools.cache
def objective(reduction: str = "mean") -> Objective:
    data = [(normal(6, 4), labels(6, 3)), (normal(4, 4, seed=2), labels(4, 3, seed=5))]
    return Objective(network([4, 5, 3], "tanh"), nn.CrossEntropyLoss(reduction=reduction), data)


def test_data_of_tens_of_megabytes_are_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(batches, "require", lambda number, *_, **__: asked.append(number))
    data = (torch.zeros(9, 2**20), torch.zeros(9, dtype=torch.long))
    batches.read_batches(data, torch.float64, CPU)
    assert asked == [9 * 2**23 + 9 * 8]


def test_denominator_over_processes_needs_a_sum_over_samples() -> None:
    def coupled(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs - outputs.mean(0), targets)

    data = (normal(6, 4), labels(6, 3))
    alone = Objective(
        network([4, 5, 3], "tanh"), coupled, data, denominator=lambda outputs, _: len(outputs)
    )
    with pytest.raises(NotASumOverSamplesError, match="to be added over processes"):
        alone.total_denominator()
    assert objective().total_denominator() == 10
    assert objective("sum").total_denominator() is None


def test_parameters_of_a_vector_are_those_of_the_model() -> None:
    found = objective()
    parts = found.unflatten(found.theta)
    assert torch.equal(torch.cat([part.flatten() for part in parts.values()]), found.theta)
    names = [name for name, part in parts.items() for _ in range(part.numel())]
    assert [found.name_of(index) for index in range(found.num_parameters)] == names
    with pytest.raises(IndexError, match=f"theta has {found.num_parameters} entries"):
        found.name_of(found.num_parameters)


def test_function_of_parameters_has_no_outputs() -> None:
    found = Objective.from_function(lambda theta: theta.square().sum(), torch.ones(3).double())
    for evaluate in (
        lambda: found.output_vector(found.theta, found.batches[0]),
        lambda: found.loss_of_vector(found.theta, found.batches[0]),
    ):
        with pytest.raises(ValueError, match=r"from_function|outputs|no model"):
            evaluate()


def test_matrix_whose_sum_overflows_is_finite() -> None:
    require_finite_matrix(objective(), torch.full((2, 2), 1e308, dtype=torch.float64), "hessian")
    bad = torch.zeros(2, 2, dtype=torch.float64)
    bad[1, 0] = torch.inf
    with pytest.raises(ValueError, match="the hessian must be finite, got nan or inf for 1 of its"):
        require_finite_matrix(objective(), bad, "hessian")


def test_loss_that_is_exactly_zero_is_unchanged() -> None:
    """Its rounding is zero too."""
    model = network([4, 5, 3], "tanh")
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    found = Objective(model, nn.MSELoss(), (normal(6, 4), torch.zeros(6, 3).double()))
    (batch,) = found.batches
    assert (batch.value, batch.value_rounding) == (0.0, 0.0)
    found.require_unchanged(batch, torch.tensor(0.0))
    with pytest.raises(ValueError, match="must not change after the Objective is built"):
        found.require_unchanged(batch, torch.tensor(1e-300, dtype=torch.float64))


@pytest.mark.parametrize("is_fused", [False, True])
def test_global_kernels_are_replaced_inside_and_restored(is_fused: bool) -> None:
    settings = torch.backends.mha
    before = settings.get_fastpath_enabled()
    names = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")
    originals = [getattr(checkpoint, name) for name in names]
    try:
        settings.set_fastpath_enabled(is_fused)
        with contextlib.suppress(ArithmeticError), twice_differentiable_kernels(CPU):
            assert not settings.get_fastpath_enabled()
            for name, original in zip(names, originals, strict=True):
                assert getattr(checkpoint, name) is not original
            raise ArithmeticError("of the model")
        assert settings.get_fastpath_enabled() == is_fused
        assert [getattr(checkpoint, name) for name in names] == originals
    finally:
        settings.set_fastpath_enabled(before)


def test_error_of_the_model_is_told_by_its_first_line() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3).double()

        def forward(self, inputs: Tensor) -> Tensor:
            raise ArithmeticError("first line\nsecond line")

    with pytest.raises(ValueError, match=r"ArithmeticError: first line \(") as info:
        Objective(Failing(), nn.MSELoss(), (normal(6, 4), normal(6, 3)))
    assert "\n" not in str(info.value)


def test_buffer_that_counts_evaluations_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3).double()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            outputs: Tensor = self.linear(inputs)
            return outputs

    with pytest.raises(ValueError, match=r"a change in its buffer calls; call model\.eval"):
        Objective(Counting(), nn.MSELoss(), (normal(6, 4), normal(6, 3)))


def test_norm_of_a_vector_is_that_of_all_entries() -> None:
    vector = normal(7)
    assert float(symmetry._norm(vector)) == pytest.approx(float(vector.norm()), rel=1e-15)


def test_error_without_a_traceback_is_not_ours() -> None:
    assert not is_of_hesspipe(ValueError("made, but not raised"))


def test_forward_without_a_signature_takes_anything() -> None:
    class InC(nn.Module):
        forward = dict.update  # type: ignore[assignment]

    signature = signature_of(InC())
    assert signature.bind(1, 2, key=3).kwargs == {"key": 3}


# --- targets that broadcast ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "targets", "is_mixed"),
    [
        ((4, 1), (4,), True), ((4,), (4, 1), True), ((4, 1, 1), (4, 1), True),
        ((4, 3), (4, 3), False), ((4,), (), False), ((), (4,), False), ((1, 1), (1,), False),
        ((4, 3), (2, 3), False), ((4, 1), (1, 4), True), ((4, 3), (1, 3), False),
        ((4, 3), (3,), False), ((4, 4), (4,), True),
    ],
)  # fmt: skip
def test_shapes_are_mixed_where_samples_meet_another_dimension(
    outputs: tuple[int, ...], targets: tuple[int, ...], is_mixed: bool
) -> None:
    assert _is_mixed(torch.zeros(outputs), torch.zeros(targets)) == is_mixed


def test_aligned_shapes_that_do_not_fit_stay_as_they_are() -> None:
    outputs, targets = torch.zeros(4, 3), torch.zeros(2)
    for one, other in _aligned(outputs, targets):
        assert one is outputs
        assert other is targets
    (tall, wide), (expanded, same) = _aligned(torch.zeros(4, 4), torch.zeros(4))
    assert (tall.shape, wide.shape) == ((4, 4), (4, 1))
    assert expanded.shape == same.shape == (4, 4)
