"""Data that are read again at every pass: the numbers of held data, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from dense_reference import reference_matrices
from problems import assert_close, labels, network, normal
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

import hesspipe
from hesspipe.errors import ChangedDataError
from hesspipe.objective import streaming
from hesspipe.objective.objective import Objective
from hesspipe.objective.streaming import digest

INPUTS, TARGETS = normal(22, 4), labels(22, 3)
SAMPLES = TensorDataset(INPUTS, TARGETS)
MODEL = network([4, 5, 3], "tanh")
LOSS = nn.CrossEntropyLoss()
REFERENCE = reference_matrices(MODEL, lambda f: f(INPUTS), lambda out: LOSS(out, TARGETS))


class Batches:
    """Iterates anew each time, without a length."""

    def __init__(self, change: Any = None, convert: Any = lambda part: part) -> None:
        self.change, self.convert, self.num_passes = change, convert, 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.num_passes += 1
        for number, pair in enumerate(zip(INPUTS.split(6), TARGETS.split(6), strict=True)):
            given: tuple[Any, Any] = tuple(map(self.convert, pair))  # type: ignore[assignment]
            if self.change and self.num_passes > 1:
                found = self.change(number, *given)
                if found is None:
                    return
                given = found
            yield given


class Pairs(Dataset[Any]):
    """Samples."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, index: int) -> Any:
        return INPUTS[index], TARGETS[index]


STREAMS: dict[str, Any] = {
    "loader": lambda: DataLoader(SAMPLES, 6),
    "two workers": lambda: DataLoader(SAMPLES, 6, num_workers=1, persistent_workers=True),
    "list": lambda: list(zip(INPUTS.split(6), TARGETS.split(6), strict=True)),
    "without a length": Batches,
    "arrays": lambda: Batches(convert=lambda part: part.numpy()),
    "noncontiguous": lambda: Batches(convert=lambda part: part.repeat_interleave(2, 0)[::2]),
    "dataset": Pairs,
    "one batch": lambda: (INPUTS, TARGETS),
    "one sample": lambda: DataLoader(SAMPLES, 1),
    "an empty batch": lambda: [
        (INPUTS[:6], TARGETS[:6]), (INPUTS[:0], TARGETS[:0]), (INPUTS[6:], TARGETS[6:]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_streamed_data_give_the_numbers_of_held_data(name: str) -> None:
    held, streamed = (Objective(MODEL, LOSS, STREAMS[name](), stream=s) for s in (False, True))
    vectors = normal(held.num_parameters, 3)
    assert streamed.num_data == held.num_data == 22
    assert [batch.share for batch in streamed.batches] == [batch.share for batch in held.batches]
    assert torch.equal(streamed.loss(held.theta), held.loss(held.theta))
    for operator in (hesspipe.HessianOperator, hesspipe.GGNOperator, hesspipe.ResidualOperator):
        assert torch.equal(operator(streamed) @ vectors, operator(held) @ vectors)
    expected = REFERENCE["hessian"]
    assert_close(hesspipe.hessian_matrix(streamed), expected)


def test_all_functions_take_streamed_data() -> None:
    held, streamed = (Objective(MODEL, LOSS, DataLoader(SAMPLES, 6), stream=s) for s in (0, 1))
    for function, options in (
        (hesspipe.eigenpairs, {"num_largest": 3}),
        (hesspipe.density, {"num_steps": 10, "num_probes": 3}),
    ):
        one, other = (function(hesspipe.HessianOperator(o), **options) for o in (held, streamed))
        field = "eigenvalues" if function is hesspipe.eigenpairs else "nodes"
        assert torch.equal(getattr(one, field), getattr(other, field))
    for matrix, compute in (
        ("hessian", hesspipe.hessian_matrix),
        ("ggn", hesspipe.ggn_matrix),
        ("residual", hesspipe.residual_matrix),
    ):
        assert torch.equal(compute(streamed), compute(held))
        assert_close(compute(streamed), REFERENCE[matrix])


def test_streams_keep_no_batch_in_memory() -> None:
    data = Batches()
    objective = Objective(MODEL, LOSS, data, stream=True)
    operator = hesspipe.HessianOperator(objective)
    before = data.num_passes
    for _ in range(3):
        operator @ objective.theta
    assert data.num_passes == before + 3
    assert not operator._kept


def test_whole_batches_are_streamed() -> None:
    data = [{"x": INPUTS[:9], "y": TARGETS[:9]}, {"x": INPUTS[9:], "y": TARGETS[9:]}]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return LOSS(model(batch["x"]), batch["y"])

    count = lambda batch: len(batch["y"])  # noqa: E731
    held, streamed = (
        Objective.from_batches(MODEL, loss, data, num_samples=count, stream=s) for s in (0, 1)
    )
    vector = normal(held.num_parameters)
    found = hesspipe.HessianOperator(streamed) @ vector
    assert torch.equal(found, hesspipe.HessianOperator(held) @ vector)
    data[1]["x"] = data[1]["x"] + 1e-9
    with pytest.raises(ChangedDataError, match="in batch 1 than at first"):
        hesspipe.HessianOperator(streamed) @ vector


CHANGES: dict[str, tuple[Any, str]] = {
    "one number": (lambda n, x, y: (x + 1e-15 * (n == 2), y), "in batch 2"),
    "one label": (lambda n, x, y: (x, (y + (n == 1)) % 3), "in batch 1"),
    "dtype": (lambda n, x, y: (x.float().double() if n == 3 else x, y), "in batch 3"),
    "precision": (lambda n, x, y: (x.float(), y), "in batch 0"),
    "shape": (lambda n, x, y: (x.unsqueeze(2).squeeze(2)[: 5 if n else 6], y), "in batch 1"),
    "order": (lambda n, x, y: (x.flip(0), y.flip(0)), "in batch 0"),
    "ends early": (lambda n, x, y: (x, y) if n < 2 else None, "2 batches instead of 4"),
    "nothing": (lambda n, x, y: None, "0 batches instead of 4"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_data_that_change_are_refused_by_their_batch(name: str) -> None:
    change, message = CHANGES[name]
    with pytest.raises(ChangedDataError, match=f"same batches at every pass, got .*{message}"):
        Objective(MODEL, LOSS, Batches(change), stream=True)


def test_data_that_change_after_the_objective_is_built_are_refused() -> None:
    data = Batches()
    objective = Objective(MODEL, LOSS, data, stream=True)
    data.change = lambda number, x, y: (x * 2, y)
    with pytest.raises(ChangedDataError, match="in batch 0"):
        hesspipe.HessianOperator(objective) @ objective.theta
    longer = [(INPUTS[:5], TARGETS[:5])]
    objective = Objective(MODEL, LOSS, longer, stream=True)
    longer.append((INPUTS[5:], TARGETS[5:]))
    with pytest.raises(ChangedDataError, match="got more than the first 1"):
        objective.loss(objective.theta)


class Noisy(Pairs):
    """Augments at random, by one of the global generators."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __getitem__(self, index: int) -> Any:
        return INPUTS[index] + self.draw(), TARGETS[index]


RANDOM: dict[str, Any] = {
    "shuffle": lambda: DataLoader(SAMPLES, 6, shuffle=True),
    "seeded sampler": lambda: DataLoader(
        SAMPLES, 6, sampler=RandomSampler(SAMPLES, generator=torch.Generator().manual_seed(3))
    ),
    "torch": lambda: DataLoader(Noisy(lambda: torch.randn(4).double()), 6),
    "numpy": lambda: DataLoader(Noisy(lambda: np.random.rand()), 6),  # noqa: NPY002
    "workers": lambda: DataLoader(Noisy(lambda: torch.randn(4).double()), 6, num_workers=1),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_loaders_are_refused_and_leave_the_callers_random_state(
    name: str, seed: int
) -> None:
    torch.manual_seed(seed)
    before = torch.get_rng_state()
    with pytest.raises(ChangedDataError, match=r"in batch 0 than at first; use shuffle=False"):
        Objective(MODEL, LOSS, RANDOM[name](), stream=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_products_over_streams_leave_the_random_state() -> None:
    objective = Objective(MODEL, LOSS, DataLoader(SAMPLES, 6), stream=True)
    assert not objective._flat.draws_numbers
    before = torch.get_rng_state()
    hesspipe.HessianOperator(objective) @ objective.theta
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "make", [iter, lambda data: (pair for pair in data), lambda data: zip(*data, strict=True)]
)
def test_iterators_are_refused_as_streams(make: Any) -> None:
    with pytest.raises(ValueError, match=r"new iterator at every pass to be streamed, got .*once"):
        Objective(MODEL, LOSS, make([(INPUTS, TARGETS)]), stream=True)


def test_streams_without_samples_or_an_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="at least one sample, got none"):
        Objective(MODEL, LOSS, [], stream=True)
    monkeypatch.setattr(streaming, "_MAX_BATCHES", 30)

    class Endless:
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield INPUTS, TARGETS

    with pytest.raises(ValueError, match="data must end to be streamed, got more than 30 batches"):
        Objective(MODEL, LOSS, Endless(), stream=True)


VALUES = [
    torch.zeros(2), torch.zeros(2, 1), torch.zeros(2).double(), torch.zeros(2).long(), None, 0,
    torch.zeros(1, dtype=torch.complex64), torch.zeros(2).bfloat16(), -torch.zeros(2), "0", b"0",
    [torch.zeros(2)], (torch.zeros(2),), {"a": torch.zeros(2)}, {"b": torch.zeros(2)},
    [torch.zeros(1), torch.zeros(1)], np.zeros(2), np.zeros(2, dtype=np.float32), torch.zeros(0),
    torch.tensor(0.0), torch.zeros(1).bool(), [], [[]], torch.zeros(2, 1, dtype=torch.complex64),
]  # fmt: skip


def test_digest_tells_all_values_apart() -> None:
    digests = [digest(value) for value in VALUES]
    assert len(set(digests)) == len(digests)
    assert digests == [digest(value) for value in VALUES]
    strided = normal(4, 6)
    assert digest(strided.T) == digest(strided.T.contiguous()) != digest(strided.reshape(6, 4))
    number = torch.ones(2, dtype=torch.complex64) * 1j
    assert digest(number.conj()) == digest(number.conj().resolve_conj()) != digest(number)
