"""The work and the memory of a sample, and the checks and forecasts that follow from them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from problems import labels, network, normal
from torch import Tensor, nn

from hesspipe import hardware
from hesspipe.errors import NotTwiceDifferentiableError, TooLargeError
from hesspipe.objective import work
from hesspipe.objective.batches import Batch
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import Division

INPUTS, TARGETS = normal(40, 4), labels(40, 3)


def measured(model: nn.Module, loss: Any = nn.CrossEntropyLoss(), size: int = 40) -> work.Work:  # noqa: B008
    batch = Batch(INPUTS[:size], TARGETS[:size], 1.0)
    return work.measured_work(FlatModel(model, torch.float64, None), loss, batch)


@pytest.mark.parametrize("width", [8, 64])
def test_work_grows_with_the_products_of_a_sample(width: int) -> None:
    found = measured(nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)))
    products = 4 * width + width * 3
    assert products <= found.operations <= 2.5 * products
    assert 8 * width <= found.graph_bytes <= 8 * (4 * width + 40)


def test_work_of_a_convolution_counts_every_place() -> None:
    model = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.Flatten())
    found = measured(model, lambda outputs, _: outputs.square().mean())
    assert found.operations >= 3 * 9 * 4


def test_work_of_what_raises_is_none() -> None:
    found = measured(nn.Linear(5, 3))
    assert (found.operations, found.graph_bytes) == (0.0, 0.0)
    assert found.num_checked(40) >= 40


def test_batch_whose_graph_does_not_fit_is_refused_before_it_is_evaluated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    class Seen(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            sizes.append(len(inputs))
            return super().forward(inputs)

    model = nn.Sequential(nn.Linear(4, 500), nn.Tanh(), Seen(500, 3))
    monkeypatch.setattr(work, "available_bytes", lambda _: 500_000)
    monkeypatch.setattr(hardware, "available_bytes", lambda *_: 200_000)
    with pytest.raises(
        TooLargeError, match=r"batch of 40 samples needs .* use smaller batches: ab"
    ):
        Objective(model, nn.CrossEntropyLoss(), (INPUTS, TARGETS))
    assert max(sizes) <= 2


def test_memory_of_a_gpu_is_what_its_driver_and_torch_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (700, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 200)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 50)
    device = torch.device("cuda", 0)
    assert hardware.available_bytes(device) == 850
    hardware.require(850, "it", "wait", device=device)
    with pytest.raises(TooLargeError, match="it needs"):
        hardware.require(851, "it", "wait", device=device)


def division(sizes: list[int], is_separable: bool = True) -> Division:
    batches = [
        Batch(normal(size, 2, seed=n), labels(size, 2), 1.0, number=n)
        for n, size in enumerate(sizes)
    ]
    return Division(SimpleNamespace(), SimpleNamespace(), batches, True, is_separable)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "num_batches"), [(1, 9), (7, 9), (20, 2), (29, 9), (30, 1)])
def test_subset_has_distinct_samples_of_few_batches(count: int, num_batches: int) -> None:
    data = division([5, 1, 14, 10])
    pieces, is_all = data.subset(count, num_batches)
    assert is_all == (count >= 30)
    rows = torch.cat([piece.inputs for piece in pieces])  # type: ignore[misc]
    assert len(rows.unique(dim=0)) == len(rows)
    if not is_all:
        assert len(pieces) <= num_batches
        available = sum(sorted([5, 1, 14, 10])[-num_batches:])
        assert len(rows) <= min(count, available)
    again = torch.cat([piece.inputs for piece in data.subset(count, num_batches)[0]])  # type: ignore[misc]
    assert torch.equal(rows, again)


def test_subset_of_coupled_data_has_whole_batches() -> None:
    pieces, is_all = division([5, 1, 14, 10], is_separable=False).subset(12, 9)
    assert not is_all
    assert {len(piece.inputs) for piece in pieces} <= {5, 1, 14, 10}
    assert division([50], is_separable=False).subset(4, 1)[1]


class Detached(nn.Module):
    """A network without the gradient for one sample, the last."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network([4, 5, 3], "tanh")

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.body(inputs)
        is_last = (inputs[:, :1] == INPUTS[-1, 0]).to(outputs.dtype)
        return outputs + is_last * (outputs.detach() - outputs)


def test_first_derivatives_of_all_samples_are_checked_whatever_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "_OPERATIONS", 0.0)
    with pytest.raises(NotTwiceDifferentiableError, match="sample 39 of batch 0"):
        Objective(Detached(), nn.CrossEntropyLoss(), (INPUTS, TARGETS))


def test_loss_that_is_special_for_one_sample_is_found_whatever_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "_OPERATIONS", 0.0)
    model = nn.Linear(4, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    targets = normal(40, 2, seed=5)
    targets[31] = 0
    loss = lambda outputs, targets: (outputs - targets).abs().pow(2).sum()  # noqa: E731
    with pytest.raises(NotTwiceDifferentiableError, match="sample 31 of batch 0"):
        Objective(model, loss, (INPUTS, targets))
    with pytest.raises(NotTwiceDifferentiableError, match="sample 31 of batch 0"):
        Objective(model, loss, [(INPUTS, targets)], stream=True)
