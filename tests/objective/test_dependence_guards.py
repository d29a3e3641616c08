"""Models and losses that only some paths of the checks for dependence, copies and weights reach."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from problems import labels, network, normal
from torch import Tensor, fx, nn
from torch.nn import functional

import hesspipe
from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective import model_kinds
from hesspipe.objective.copies import Copier, _is_constant, _is_empty
from hesspipe.objective.dependence import Dependence, Split, Term, one, one_per_sample
from hesspipe.objective.loss_parts import LossCheck
from hesspipe.objective.model_kinds import require_usable
from hesspipe.objective.objective import Objective
from hesspipe.objective.padding import PaddedLookup, constant_rows

CPU = torch.device("cpu")
INPUTS, TARGETS = normal(6, 4), labels(6, 3)


# --- what a loss divides by ----------------------------------------------------------------------


def splits_of(sizes: list[int], seed: int = 0) -> list[Split]:
    """The outputs and targets of some samples, and of two parts of them."""
    terms = [
        Term(normal(size, 3, seed=seed + n), normal(size, 3, seed=seed + 50 + n), size)
        for n, size in enumerate(sizes)
    ]
    outputs, targets = (
        torch.cat([getattr(term, name) for term in terms]) for name in ("outputs", "targets")
    )
    return [Split(Term(outputs, targets, sum(sizes)), terms)]


def mean_of_rows(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean()


def sum_of_rows(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum()


def check(loss: Any, splits: list[list[Split]], given: Any = None) -> tuple[LossCheck, Dependence]:
    found = Dependence()
    run = LossCheck(loss, given, found, torch.float64)
    for number, of_batch in enumerate(splits):
        run.look_at(number, of_batch)
    return run, found


@pytest.mark.parametrize(
    ("loss", "divide", "is_sum"),
    [(mean_of_rows, one_per_sample, False), (sum_of_rows, one, True)],
)
@pytest.mark.parametrize("num_batches", [1, 2, 3])
def test_loss_check_finds_what_the_loss_divides_by(
    loss: Any, divide: Any, is_sum: bool, num_batches: int
) -> None:
    run, found = check(loss, [splits_of([2, 3], seed=n) for n in range(num_batches)])
    run.conclude()
    assert (found.divide, found.is_sum, found.coupling) == (divide, is_sum, None)


def test_loss_check_skips_parts_on_which_the_loss_is_not_defined() -> None:
    """The permuted outputs of a second split are the check's own, not the caller's."""
    first, second = splits_of([2, 3]), splits_of([2, 3], seed=9)
    allowed = {id(term.outputs) for split in first for term in (split.whole, *split.parts)}

    def picky(outputs: Tensor, targets: Tensor) -> Tensor:
        if id(outputs) not in allowed:
            raise ValueError("outside")
        return mean_of_rows(outputs, targets)

    run, found = check(picky, [[*first, *second]])
    run.conclude()
    assert (found.divide, found.coupling) == (one_per_sample, None)
    run, found = check(picky, [[*second, *first]])
    assert run._kind([*second, *first], one_per_sample) == ""


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_check_skips_parts_with_a_loss_that_is_not_finite(bad: float) -> None:
    first, second = splits_of([2, 3]), splits_of([2, 3], seed=9)
    whole = id(second[0].whole.outputs)

    def infinite(outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_of_rows(outputs, targets) * (bad if id(outputs) == whole else 1.0)

    run, _ = check(infinite, [])
    assert run._kind([*first, *second], one_per_sample) == "mean"


def test_denominator_of_another_kind_matters_over_several_batches_only() -> None:
    """One batch has the weight 1, whatever its denominator; several would be weighted wrongly."""

    def given(outputs: Tensor, targets: Tensor, num_samples: int) -> float:
        return float(num_samples) ** 2

    run, found = check(mean_of_rows, [splits_of([2, 3])], given)
    run.conclude()
    assert (found.divide, found.coupling) == (one_per_sample, None)
    run, _ = check(mean_of_rows, [splits_of([2, 3]), splits_of([3, 3], seed=5)], given)
    with pytest.raises(NotASumOverSamplesError, match=r"denominator must be what .*len\(targets\)"):
        run.conclude()
    run, _ = check(sum_of_rows, [splits_of([2, 3]), splits_of([3, 3], seed=5)], given)
    with pytest.raises(NotASumOverSamplesError, match=r"for a sum; .*outputs, targets: 1\.0"):
        run.conclude()


@pytest.mark.parametrize("factor", [1.0, 7.0])
def test_denominator_may_be_a_multiple_of_the_number_of_samples(factor: float) -> None:
    def given(outputs: Tensor, targets: Tensor, num_samples: int) -> float:
        return factor * num_samples

    run, found = check(mean_of_rows, [splits_of([2, 3]), splits_of([1, 3], seed=5)], given)
    run.conclude()
    assert found.coupling is None
    assert found.divide in (given, one_per_sample)


def test_batch_without_valid_labels_has_no_weight() -> None:
    def nothing(outputs: Tensor, targets: Tensor, num_samples: int) -> float:
        return 0.0

    def undefined(outputs: Tensor, targets: Tensor) -> Tensor:
        raise AssertionError("not evaluated")

    run, _ = check(undefined, [])
    assert run._weigh(splits_of([2, 2])[0].whole, nothing) == (0.0, 0.0)
    found = LossCheck(mean_of_rows, None, Dependence(), torch.float64)
    term = splits_of([2, 2])[0].whole
    size, product = found._weigh(term, one_per_sample)
    assert (size, product) == (4.0, 4.0 * float(mean_of_rows(term.outputs, term.targets)))


@pytest.mark.parametrize("mixes", [False, True])
def test_mixing_loss_that_is_not_defined_far_away_is_found_nearby(mixes: bool) -> None:
    (split,) = splits_of([3, 3])
    here = split.whole.outputs

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if not torch.equal(outputs.detach(), here):
            raise ValueError("outside")
        rows = outputs - outputs.mean(0) if mixes else outputs
        return (rows - targets).pow(4).sum()

    run, _ = check(loss, [])
    assert run._mixes(split) == mixes


@pytest.mark.parametrize(
    ("loss", "mixes"),
    [
        (lambda o, t: (o - t).square().sum(), False),
        (lambda o, t: (o - t).square().sum().sqrt(), True),
        (lambda o, t: (o * o.roll(1, 0)).sum(), True),
        (lambda o, t: (o - t).abs().sum(), False),
        (lambda o, t: o.sum(), False),
    ],
)
def test_mixing_of_samples_is_seen_in_slopes(loss: Any, mixes: bool) -> None:
    (split,) = splits_of([4, 3])
    assert check(loss, [])[0]._mixes(split) == mixes


def test_denominators_that_are_all_zero_are_refused() -> None:
    ignored = torch.full((6,), -100)
    with pytest.raises(ValueError, match=r"the loss's denominator must be positive, got 0\.0 over"):
        Objective(network([4, 5, 3], "tanh"), nn.CrossEntropyLoss(), [(INPUTS, ignored)] * 2)


@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_denominator_that_is_not_positive_names_its_batch(bad: float) -> None:
    data = [(INPUTS, TARGETS), (INPUTS[:2], TARGETS[:2])]

    def given(outputs: Tensor, targets: Tensor) -> float:
        return bad if len(targets) == 2 else 6.0

    with pytest.raises(ValueError, match=f"denominator must be positive, got {bad} in batch 1"):
        Objective(network([4, 5, 3], "tanh"), nn.CrossEntropyLoss(), data, denominator=given)


# --- outputs of a part ---------------------------------------------------------------------------


class Varying(nn.Module):
    """Another number of outputs for fewer samples."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.linear(inputs)
        return (outputs, outputs) if len(inputs) == 6 else (outputs,)


def test_other_outputs_for_a_part_couple_the_samples() -> None:
    found = Objective(Varying(), lambda o, t: functional.cross_entropy(o[0], t), (INPUTS, TARGETS))
    assert found.coupling == "the model returns other outputs for a part of batch 0"


class Words(nn.Module):
    """Returns a word beside its values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()

    def forward(self, inputs: Tensor) -> dict[str, Any]:
        return {"name": "words", "values": self.linear(inputs)}


def test_outputs_that_are_no_tensors_are_left_out() -> None:
    network = Words()
    found = Objective(
        network, lambda o, t: functional.cross_entropy(o["values"], t), (INPUTS, TARGETS)
    )
    values = network.linear(INPUTS)
    assert found.has_output_rows
    assert torch.equal(found.output_vector(found.theta, found.batches[0]), values.flatten())
    plain = functional.cross_entropy(values, TARGETS).item()
    assert float(found.loss(found.theta)) == pytest.approx(plain, rel=1e-14)


def test_loss_that_uses_an_output_that_is_no_tensor_has_the_hessian_only() -> None:
    def loss_fn(outputs: dict[str, Any], targets: Tensor) -> Tensor:
        return len(outputs["name"]) * functional.cross_entropy(outputs["values"], targets)

    found = Objective(Words(), loss_fn, (INPUTS, TARGETS))
    assert hesspipe.hessian_matrix(found).shape == (15, 15)
    with pytest.raises(ValueError, match="name"):
        hesspipe.ggn_matrix(found)


def test_batches_of_one_sample_that_do_not_fit_together_are_taken_as_they_are() -> None:
    class AnyLength(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 3).double()

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.linear(inputs.unsqueeze(2)).mean(1)
            return outputs

    data = [(normal(1, size), TARGETS[:1]) for size in (2, 5)]
    found = Objective(AnyLength(), nn.CrossEntropyLoss(), data)
    assert found.coupling is None
    assert found.num_data == 2


# --- kinds of models -----------------------------------------------------------------------------


def test_complex_parameters_are_refused() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2, dtype=torch.complex128))
    with pytest.raises(ValueError, match=r"parameters must be real, got weight of torch\.complex1"):
        require_usable(model)


def test_model_on_two_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class There(nn.Parameter):
        """As on a GPU, which is not needed for this."""

        device = torch.device("cuda", 0)

    model = network([4, 5, 3], "tanh")
    model.register_parameter("other", There(torch.ones(2, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"model must be on one device, got \['cpu', 'cuda:0'\]"):
        require_usable(model)


class Compiled(nn.Module):
    """As torch.compile returns it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


def test_wrapped_model_is_taken_as_it_was_before() -> None:
    model = network([4, 5, 3], "tanh")
    for wrapped in (model, Compiled(model), nn.DataParallel(model), Compiled(Compiled(model))):
        assert model_kinds.unwrapped(wrapped) is model
    require_usable(nn.Sequential(model, Compiled(model)))
    for wrong, name in ((nn.Linear, "Linear"), (torch.sin, "builtin_function_or_method")):
        with pytest.raises(ValueError, match=f"model must be an instance of nn.Module, got {name}"):
            model_kinds.unwrapped(wrong)


@pytest.mark.parametrize("place", [0, 1])
def test_rows_of_padding_are_found_behind_embeddings_of_other_kinds(place: int) -> None:
    """Those without padding, and with a weight that is computed, come first."""
    plain = nn.Embedding(5, 2, padding_idx=None, sparse=True)
    computed = nn.utils.parametrizations.weight_norm(nn.Embedding(5, 2, padding_idx=1))
    padded = nn.Embedding(5, 2, padding_idx=3)
    parts = [plain, computed, padded] if place else [padded, computed, plain]
    structure = nn.ModuleList(parts)
    names = {id(value): name for name, value in structure.named_parameters()}
    assert constant_rows(structure, names) == {f"{2 * place}.weight": 3}
    assert [isinstance(part, PaddedLookup) for part in (plain, computed, padded)] == [0, 1, 1]
    assert not plain.sparse


# --- copies --------------------------------------------------------------------------------------


def test_copy_converts_modules_with_a_copy_method_of_their_own() -> None:
    traced = fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    copier = Copier(torch.float64, CPU)
    found = copier.copy(traced)
    assert found is not traced
    assert {value.dtype for value in found.parameters()} == {torch.float64}
    assert {value.dtype for value in traced.parameters()} == {torch.float32}
    there, here = found(torch.ones(2, 3).double()), traced(torch.ones(2, 3))
    assert (there - here).abs().max() <= 1e-6
    # A parameter that was copied before is the same in both.
    weight, own = next(traced.parameters()), Copier(torch.float64, CPU)
    assert next(own.copy([weight, traced])[1].parameters()) is own.copy(weight)


def test_copy_shares_tensors_that_hold_no_numbers() -> None:
    copier = Copier(torch.float64, CPU)
    for tensor in (
        torch.empty(2, device="meta"),
        nn.parameter.UninitializedParameter(),
    ):
        assert copier.copy(tensor) is tensor


def test_copy_shares_objects_that_copying_does_not_separate() -> None:
    class Alone:
        """Its copy is itself."""

        def __copy__(self) -> Alone:
            return self

    class Shared:
        """Its copy has the same attributes, not equal ones."""

        def __init__(self) -> None:
            self.numbers = torch.ones(2)

        def __copy__(self) -> Shared:
            other = object.__new__(Shared)
            other.__dict__ = self.__dict__
            return other

    class Refusing:
        def __copy__(self) -> Refusing:
            raise TypeError("cannot be copied")

    for value in (Alone(), Shared(), Refusing()):
        assert Copier(torch.float64, CPU).copy(value) is value


def test_copy_replaces_keys_that_are_copied_themselves() -> None:
    key = torch.ones(2)
    found = Copier(torch.float64, CPU).copy({key: 1, "name": torch.zeros(1)})
    assert len(found) == 2
    (other,) = (each for each in found if isinstance(each, Tensor))
    assert other is not key
    assert other.dtype == found["name"].dtype == torch.float64


def test_functions_of_libraries_are_constant_unless_they_hold_something() -> None:
    assert _is_constant(functional.mse_loss, set())
    assert _is_constant((1, functional.relu, "a"), set())
    assert not _is_constant([1], set())
    assert not _is_constant(splits_of, set())  # not of a library
    assert not _is_constant((functional.relu, torch.ones(1)), set())


def test_variable_that_is_not_bound_yet_is_empty() -> None:
    def outer(is_bound: bool) -> Any:
        if is_bound:
            late = 3.0

        def inner() -> float:
            return late

        return inner

    assert _is_empty(outer(False).__closure__[0])
    assert not _is_empty(outer(True).__closure__[0])
    rebuilt = Copier(torch.float64, CPU).copy(outer(True))
    assert rebuilt() == 3.0
    unbound = Copier(torch.float64, CPU).copy(outer(False))
    with pytest.raises(NameError):
        unbound()
    assert copy.copy(outer(True))() == 3.0


SETTINGS = {"factor": torch.ones(2)}


def uses_settings() -> Tensor:
    return SETTINGS["factor"]


def test_copy_of_a_function_leaves_the_globals_of_its_module_alone() -> None:
    before = SETTINGS
    found = Copier(torch.float64, CPU).copy(uses_settings)
    assert SETTINGS is before
    assert SETTINGS["factor"].dtype == torch.float32
    assert found().dtype == torch.float64
    SETTINGS["factor"] = torch.zeros(2)
    assert found().tolist() == [1, 1]  # its own
    SETTINGS["factor"] = torch.ones(2)


def test_copies_of_functions_of_one_module_share_one_copy_of_its_globals() -> None:
    copier = Copier(torch.float64, CPU)
    one, other = copier.copy(uses_settings), copier.copy(splits_of)
    assert one.__globals__ is other.__globals__
    assert one.__globals__ is not globals()
