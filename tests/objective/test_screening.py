"""One comparison of outputs tells what it can, and leaves open what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from problems import labels, network, normal
from torch import Tensor, nn

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective import work
from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import Term
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.loss_graphs import GraphSurvey
from hesspipe.objective.objective import Objective
from hesspipe.objective.screening import Screen
from hesspipe.objective.special_points import is_regular_loss

INPUTS, TARGETS = normal(20, 4), labels(20, 3)
ALL = torch.arange(20)


class Hidden(nn.Module):
    """A network with a function of all its hidden units (n, 6)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        with torch.no_grad():
            for seed, parameter in enumerate(self.parameters()):
                parameter.copy_(0.5 * normal(*parameter.shape, seed=seed))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.function(self.first(inputs)))
        return outputs


class Seen(NamedTuple):
    """What is known of the outputs, of all first derivatives, and of the loss at the parameters."""

    unconfirmed: Tensor
    has_right_slopes: bool
    is_regular: bool


def screened(
    function: Callable[[Tensor], Tensor],
    loss: Any = nn.CrossEntropyLoss(),  # noqa: B008
    dtype: torch.dtype = torch.float64,
) -> Seen:
    """Screen half of a batch."""
    flat = FlatModel(Hidden(function), dtype, None)
    batch = Batch(INPUTS.to(dtype), TARGETS, 1.0)
    screen = Screen(loss, flat.another_point(), flat.is_varied, GraphSurvey(flat))
    whole = Term(flat(screen.ahead(), batch.inputs), TARGETS, 20)
    at_theta = flat(flat.theta, batch.inputs)
    fresh = flat.fresh_copy()
    found = screen.look(fresh, batch, ALL[1::2], whole)
    is_right, is_regular = screen.look_at_loss(fresh, batch, [found], whole, at_theta)
    return Seen(found.unconfirmed, found.has_right_slopes and is_right, is_regular)


def partly_detached(hidden: Tensor) -> Tensor:
    return torch.where(hidden[:, :1] > 0, hidden.detach(), hidden).tanh()


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
    "normalized": lambda hidden: nn.functional.layer_norm(hidden, (6,)),
    "relu": torch.relu,
}
# What is wrong -> whether outputs are confirmed, and whether first derivatives are.
FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], bool, bool]] = {
    "detached": (torch.detach, True, True),  # the last layer still has a derivative
    "partly detached": (partly_detached, True, False),
    "random": (lambda hidden: hidden + 1e-9 * torch.randn_like(hidden), False, False),
    "mean of the batch": (lambda hidden: hidden - hidden.mean(0), False, False),
    "a little of the batch": (lambda hidden: hidden + 1e-10 * hidden.sum(0), False, True),
    "place in the batch": (
        lambda hidden: hidden + 1e-8 * torch.arange(len(hidden)).unsqueeze(1), False, True
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SMOOTH)
def test_screen_leaves_nothing_open_where_nothing_is_wrong(name: str, dtype: torch.dtype) -> None:
    found = screened(SMOOTH[name], dtype=dtype)
    assert not len(found.unconfirmed)
    assert found.has_right_slopes
    assert found.is_regular


@pytest.mark.parametrize("name", ["partly detached", "random", "mean of the batch"])
def test_screen_leaves_open_what_is_wrong(name: str) -> None:
    function, is_confirmed, is_right = FAULTS[name]
    found = screened(function)
    assert (len(found.unconfirmed) == 0) == is_confirmed
    assert is_right or not (found.has_right_slopes and is_confirmed)


@pytest.mark.parametrize("name", ["a little of the batch", "place in the batch"])
def test_screen_sees_a_dependence_far_below_the_error_of_differences(name: str) -> None:
    assert len(screened(FAULTS[name][0]).unconfirmed) > 0


def test_screen_leaves_all_open_where_a_part_cannot_be_evaluated() -> None:
    def fixed(hidden: Tensor) -> Tensor:
        if len(hidden) < 20:
            raise RuntimeError("20 samples")
        return hidden

    found = screened(fixed)
    assert found.unconfirmed.tolist() == list(range(10))
    assert not found.has_right_slopes
    assert not found.is_regular


def detached_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = nn.functional.cross_entropy(outputs, targets, reduction="none")
    return torch.cat([losses[:-1], losses[-1:].detach()]).sum()


def test_screen_leaves_a_loss_with_a_wrong_slope_open() -> None:
    found = screened(torch.tanh, detached_loss)
    assert not len(found.unconfirmed)
    assert not found.has_right_slopes


@pytest.mark.parametrize(("shift", "is_regular"), [(0.0, False), (0.1, True)])
def test_loss_is_regular_unless_its_curvature_is_that_of_one_point(
    shift: float, is_regular: bool
) -> None:
    """|x|^2 by way of |x| has the curvature 2, and by torch 0 at 0."""
    here = torch.zeros(3, 2, dtype=torch.float64) + shift
    near = here + 1e-3 * normal(3, 2)
    found = is_regular_loss(lambda rows: rows.abs().pow(2).sum(), here, near, 1e-3)
    assert found == is_regular


def half_detached(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose last sample of this batch has no slope, of whole batches only."""
    losses = nn.functional.cross_entropy(outputs, targets, reduction="none")
    if len(losses) < 20:
        return losses.mean()
    return torch.cat([losses[:-1], losses[-1:].detach()]).mean()


def test_slope_that_only_the_loss_of_a_whole_batch_lacks_is_refused() -> None:
    """The loss is compared on the batch, from the outputs for its parts."""
    with pytest.raises(NotTwiceDifferentiableError, match="derivative of loss_fn"):
        Objective(network([4, 5, 3], "tanh"), half_detached, (INPUTS, TARGETS))


class Counted(nn.Module):
    """Counts the samples that it is evaluated on, of all its copies together."""

    num_samples = 0

    def forward(self, inputs: Tensor) -> Tensor:
        Counted.num_samples += len(inputs)
        return inputs


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("size", [400, 100, 20])
def test_building_evaluates_a_sample_a_few_times(
    activation: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice at the parameters, twice beside, twice near them, and few of them more often."""
    monkeypatch.setattr(work, "_OPERATIONS", 0.0)
    monkeypatch.setattr(Counted, "num_samples", 0)
    model = nn.Sequential(Counted(), *network([4, 5, 3], activation))
    inputs, targets = normal(400, 4), labels(400, 3)
    data = list(zip(inputs.split(size), targets.split(size), strict=True))
    Objective(model, nn.CrossEntropyLoss(), data)
    # A part of the last batch first, a single sample of each, and what is checked of four samples.
    few = size // 2 + len(data) + 100
    assert Counted.num_samples <= 6 * 400 + few


@pytest.mark.parametrize("num_batches", [1, 4])
def test_building_shows_what_is_checked(
    num_batches: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = list(zip(INPUTS.chunk(num_batches), TARGETS.chunk(num_batches), strict=True))
    model = network([4, 5, 3], "tanh")
    Objective(model, nn.CrossEntropyLoss(), data, progress=True)
    shown = capsys.readouterr().err
    assert "outputs and first derivatives" in shown
    assert f"{num_batches}/{num_batches}" in shown
    assert "second derivatives" in shown
    Objective(model, nn.CrossEntropyLoss(), data, progress=False)
    Objective(model, nn.CrossEntropyLoss(), data)
    assert capsys.readouterr().err == ""


def test_building_from_batches_shows_what_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    batches = [{"x": INPUTS, "y": TARGETS}]
    Objective.from_batches(network([4, 5, 3], "tanh"), loss, batches, progress=True)
    assert "checks of the objective" in capsys.readouterr().err
