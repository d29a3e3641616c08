"""Loaders that lie, change, fail or give odd batches: the right matrix, or one clear message."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

import hesspipe
from hesspipe.objective.streaming import digest

INPUTS, TARGETS = normal(7, 4), labels(7, 3)
PAIRS = list(zip(INPUTS.split(3), TARGETS.split(3), strict=True))
RECORDS = [{"x": x, "y": y} for x, y in PAIRS]
torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Samples, whose number may be another than is said."""

    def __init__(self, length: int = 7, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.length, self.change = length, change

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.change(INPUTS[index]), TARGETS[index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples one after the other."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(INPUTS, TARGETS, strict=True))


class Again:
    """Begins again at every pass."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self.begin()


class Shrinking:
    """Has one batch less at every pass."""

    def __init__(self) -> None:
        self.size = 3

    def __iter__(self) -> Iterator[Any]:
        self.size -= 1
        return iter(PAIRS[: self.size])


@dataclasses.dataclass
class Inner:
    """Part of a batch."""

    x: Any
    y: Any
    note: str = "a"


@dataclasses.dataclass
class Outer:
    """A batch in another."""

    inner: Inner
    array: Any = dataclasses.field(default_factory=lambda: np.array(["a", None], dtype=object))


class Named(NamedTuple):
    """A pair with names."""

    x: Tensor
    y: Tensor


OWN_NUMBERS = np.random.default_rng(0)


def own_noise(inputs: Tensor) -> Tensor:
    return inputs + float(OWN_NUMBERS.normal())


def failing(error: Exception) -> Callable[[], Iterator[Any]]:
    def begin() -> Iterator[Any]:
        yield PAIRS[0]
        raise error

    return begin


def of_pairs(data: Any) -> hesspipe.Objective:
    return hesspipe.Objective(MODEL, nn.CrossEntropyLoss(), data, stream=True)


def of_records(
    data: Any,
    inputs: Callable[[Any], Tensor] = lambda batch: batch["x"],
    targets: Callable[[Any], Tensor] = lambda batch: batch["y"],
) -> hesspipe.Objective:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return functional.cross_entropy(model(inputs(batch)), targets(batch))

    return hesspipe.Objective.from_batches(
        MODEL, loss, data, num_samples=lambda batch: len(targets(batch)), stream=True
    )


RIGHT: dict[str, Callable[[], hesspipe.Objective]] = {
    "samples in turn": lambda: of_pairs(DataLoader(Stream(), batch_size=3)),
    "samples in two sets": lambda: of_pairs(
        ConcatDataset([Subset(Samples(), [0, 1]), Subset(Samples(), range(2, 7))])
    ),
    "worker": lambda: of_pairs(DataLoader(Samples(), batch_size=3, num_workers=1)),
    "batch without samples": lambda: of_pairs(
        Again(lambda: iter([PAIRS[0], (INPUTS[:0], TARGETS[:0]), *PAIRS[1:]]))
    ),
    "arrays": lambda: of_pairs(Again(lambda: ((x.numpy(), y.numpy()) for x, y in PAIRS))),
    "named pairs": lambda: of_pairs(deque(Named(*pair) for pair in PAIRS)),
    "records": lambda: of_records(DataLoader([{"x": x, "y": y} for x, y in Samples()], 3)),
    "record without samples": lambda: of_records(
        [RECORDS[0], {"x": INPUTS[:0], "y": TARGETS[:0]}, *RECORDS[1:]]
    ),
    "more keys": lambda: of_records([{**RECORDS[0], "text": ["a"], "z": 1}, *RECORDS[1:]]),
    "classes in classes": lambda: of_records(
        [Outer(Inner(*pair)) for pair in PAIRS], lambda b: b.inner.x, lambda b: b.inner.y
    ),
    "sparse": lambda: of_records(
        [{**record, "x": record["x"].to_sparse()} for record in RECORDS],
        lambda batch: batch["x"].to_dense(),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_odd_loaders_give_the_matrix_of_all_data(name: str) -> None:
    plain = hesspipe.Objective(MODEL, nn.CrossEntropyLoss(), (INPUTS, TARGETS))
    found = RIGHT[name]()
    assert found.num_data == 7
    vector = plain.theta
    assert_close(hesspipe.HessianOperator(found) @ vector, hesspipe.HessianOperator(plain) @ vector)


CHANGED = "data must give the same batches at every pass"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "shuffled": (lambda: of_pairs(DataLoader(Samples(), 3, shuffle=True)), CHANGED),
    "shuffled by its own generator": (
        lambda: of_pairs(DataLoader(Samples(), 3, shuffle=True, generator=torch.Generator())),
        CHANGED,
    ),
    "noise of torch": (lambda: of_pairs(Samples(change=lambda x: x + torch.randn(4))), CHANGED),
    "noise of its own": (lambda: of_pairs(Samples(change=own_noise)), CHANGED),
    "shrinking": (lambda: of_pairs(Shrinking()), CHANGED),
    "iterator in disguise": (
        lambda: of_pairs(Again(iter(PAIRS).__iter__)),
        CHANGED,
    ),
    "iterator": (lambda: of_pairs(iter(PAIRS)), "must give a new iterator at every pass"),
    "length that is too large": (
        lambda: of_pairs(Samples(9)),
        r"got IndexError .* as batch 0 was read; its __len__ may be more than it holds",
    ),
    "failing": (
        lambda: of_pairs(Again(failing(ZeroDivisionError("division by zero")))),
        r"got ZeroDivisionError \(division by zero\) from Again as batch 1 was read",
    ),
    "failing on records": (
        lambda: of_records(Again(lambda: iter([RECORDS[0], {}["y"]]))),
        r"got KeyError \('y'\) from Again as batch 0 was read",
    ),
    "other keys": (
        lambda: of_records([RECORDS[0], {"x": INPUTS, "label": TARGETS}]),
        r"num_samples must be a function of every batch, got KeyError \('y'\) for dict with",
    ),
    "words for labels": (
        lambda: of_pairs(Again(lambda: ((x, ["a"] * len(y)) for x, y in PAIRS))),
        "must be tensors",
    ),
    "no samples": (lambda: of_pairs([(INPUTS[:0], TARGETS[:0])]), "at least one sample"),
    "tensors without data": (lambda: of_pairs([(INPUTS.to("meta"), TARGETS)]), "meta device"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_loaders_that_change_or_fail_are_refused(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build()


def test_errors_of_files_are_those_of_the_system() -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        of_pairs(Again(failing(FileNotFoundError("gone"))))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "coo": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "csc": Tensor.to_sparse_csc,
    "bsr": lambda matrix: matrix.to_sparse_bsr((2, 2)),
    "nested": lambda matrix: torch.nested.nested_tensor([matrix[0], matrix[1, :2]]),
}


@pytest.mark.filterwarnings("ignore:Sparse|.*[Nn]ested tensors|.*prototype")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_digest_tells_sparse_tensors_apart(layout: str) -> None:
    matrix = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 4.0]])
    other, moved = matrix.clone(), matrix.roll(1, 1)
    other[0, 0] = 5
    digests = [digest(LAYOUTS[layout](values)) for values in (matrix, matrix.clone(), other, moved)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
