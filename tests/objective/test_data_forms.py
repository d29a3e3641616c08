"""Every form of data is read in one way, whole and in order, or refused with advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from hesspipe.objective.batches import Batch, read_batches
from hesspipe.objective.objective import Objective
from hesspipe.objective.pytrees import named_tensors

X, Y = normal(7, 3), labels(7, 4)


class Samples:
    """Samples by number; not a Dataset of torch."""

    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.inputs[index], self.targets[index]


class TorchSamples(Samples, Dataset[Any]):
    """The same as a Dataset."""


class Stream(IterableDataset[Any]):
    """Samples one after another."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)


class Both(NamedTuple):
    """A batch with names."""

    inputs: Any
    targets: Any


@dataclass
class Record:
    """A batch that is no tuple."""

    inputs: Any
    targets: Any


def read(data: Any) -> list[Batch]:
    return read_batches(data, torch.float64, torch.device("cpu"))


def halves() -> list[tuple[Tensor, Tensor]]:
    return [(X[:3], Y[:3]), (X[3:], Y[3:])]


FORMS: dict[str, Callable[[], Any]] = {
    "tuple": lambda: (X, Y),
    "named tuple": lambda: Both(X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "big-endian array": lambda: (X.numpy().astype(">f8"), Y.numpy().astype(">i4").astype("i8")),
    "array read backwards": lambda: (X.flip(0).numpy()[::-1], Y.flip(0).numpy()[::-1]),
    "list of one": lambda: [(X, Y)],
    "list": halves,
    "list of lists": lambda: [list(pair) for pair in halves()],
    "list of arrays": lambda: [(x.numpy(), y.numpy()) for x, y in halves()],
    "generator": lambda: (pair for pair in halves()),
    "zip": lambda: zip(X.split(2), Y.split(2), strict=True),
    "empty batches": lambda: [(X[:0], Y[:0]), *halves(), (X[:0], Y[:0])],
    "TensorDataset": lambda: TensorDataset(X, Y),
    "DataLoader": lambda: DataLoader(TensorDataset(X, Y), batch_size=2),
    "Subset": lambda: Subset(TensorDataset(X.flip(0), Y.flip(0)), range(6, -1, -1)),
    "ConcatDataset": lambda: ConcatDataset([TensorDataset(*pair) for pair in halves()]),
    "own samples": lambda: Samples(X, Y),
    "own samples of arrays and numbers": lambda: TorchSamples(X.numpy(), Y.tolist()),
    "stream of samples": Stream,
}


@pytest.mark.parametrize("form", FORMS)
def test_read_batches_keeps_every_sample_in_order(form: str) -> None:
    batches = read(FORMS[form]())
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), X)
    assert torch.equal(torch.cat([batch.targets for batch in batches]), Y)


def test_read_batches_collates_datasets_of_many_samples_in_several_batches() -> None:
    inputs, targets = normal(2345, 1), labels(2345, 3)
    state = torch.get_rng_state()
    batches = read(TensorDataset(inputs, targets))
    assert max(batch.num_samples for batch in batches) <= 1000
    assert torch.equal(torch.cat([batch.targets for batch in batches]), targets)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_read_batches_converts_arrays_and_tensors_at_any_depth(dtype: torch.dtype) -> None:
    whole, flags = np.arange(4, dtype=np.int32), np.array([True, False, True, True])
    inputs = {
        "a": {"b": np.ones((4, 2), np.float32), "c": [whole, None, "name", 3]},
        "z": torch.ones(4, 2, dtype=torch.complex64),
    }
    (batch,) = read_batches((inputs, (flags, {"y": whole})), dtype, torch.device("cpu"))
    found = batch.inputs.values
    assert found["a"]["b"].dtype == dtype
    assert found["z"].dtype == dtype.to_complex()
    assert torch.equal(found["a"]["c"][0], torch.arange(4, dtype=torch.int32))
    assert found["a"]["c"][1:] == [None, "name", 3]
    assert batch.targets[0].tolist() == flags.tolist()
    assert {len(tensor) for _, tensor in named_tensors(batch.inputs[:2].values, "")} == {2}


@pytest.mark.parametrize("form", ["tensors", "arrays", "nested"])
def test_read_batches_copies(form: str) -> None:
    inputs, targets = X.clone(), X.clone()
    data: Any = {
        "tensors": (inputs, targets),
        "arrays": (inputs.numpy(), targets.numpy()),
        "nested": [({"x": {"y": inputs.numpy()}}, [targets])],
    }[form]
    (batch,) = read(data)
    inputs.zero_()
    targets.zero_()
    parts = [batch.inputs if form != "nested" else batch.inputs.values, batch.targets]
    for _, tensor in named_tensors(parts, ""):
        assert torch.equal(tensor, X)


PAIR = r"a pair \(inputs, targets\), got "
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "list of two tensors": (lambda: [X, Y], PAIR + "Tensor as batch 0; write one batch as the tu"),
    "list of two arrays": (lambda: [X.numpy(), Y.numpy()], PAIR + "ndarray as batch 0"),
    "list of a dictionary and a tensor": (lambda: [{"x": X}, Y], PAIR + "dict as batch 0"),
    "list of two dictionaries": (
        lambda: [{"x": X[:3], "y": Y[:3]}, {"x": X[3:], "y": Y[3:]}],
        PAIR + r"dict as batch 0; write a batch of a dictionary as \(dictionary, targets\)",
    ),
    "list of inputs and tensor": (lambda: [(X, X), Y], PAIR + "Tensor as batch 1"),
    "dictionary": (lambda: {"inputs": X, "targets": Y}, "got dict; write one batch as the tuple"),
    "tensor": (lambda: X, "got Tensor"),
    "array": (lambda: X.numpy(), "got ndarray"),
    "None": (lambda: None, "got NoneType"),
    "text": (lambda: "train", "got str"),
    "dataclass": (lambda: Record(X, Y), "got Record"),
    "list of dataclasses": (lambda: [Record(X, Y)], PAIR + "Record as batch 0"),
    "list of texts": (lambda: ["ab"], PAIR + "str as batch 0"),
    "three parts": (lambda: (X, X, Y), PAIR + r"tuple of 3 as batch 0; group the parts"),
    "three batches in a tuple": (
        lambda: ((X, Y), (X, Y), (X, Y)), PAIR + "tuple of 3 .* several batches a list"
    ),
    "one part": (lambda: (X,), PAIR + r"tuple of 1 as batch 0; without targets write \(inputs, No"),
    "two pairs in a tuple": (
        lambda: tuple(halves()), r"got a tuple of two pairs of the same shapes; write two batches"
    ),
    "two dictionaries in a tuple": (
        lambda: ({"x": X[:3], "y": Y[:3]}, {"x": X[3:], "y": Y[3:]}),
        r"got a tuple of two dictionaries of the same shapes; write two batches as the list",
    ),
    "loader of inputs alone": (lambda: DataLoader(TensorDataset(X)), PAIR + "list of 1 as batch 0"),
    "dataset of inputs alone": (lambda: TensorDataset(X), r"a pair \(x, y\), got tuple of 1"),
    "dataset of triples": (lambda: TensorDataset(X, X, Y), r"a pair \(x, y\), got tuple of 3"),
    "dataset of tensors": (lambda: Subset(X, [0, 1]), r"a pair \(x, y\), got Tensor"),  # type: ignore[arg-type]
    "dataset of different shapes": (
        lambda: Samples([torch.ones(2), torch.ones(3)], [0, 1]), "tensors or arrays of one shape"
    ),
    "dataset of objects": (lambda: Samples([Record(X, Y)], [0]), "tensors or arrays of one shape"),
    "list of single samples": (
        lambda: list(TensorDataset(X, Y)), "one row per sample, got a single number in batch 0"
    ),
    "pairs of rows": (lambda: zip(X, normal(7, 4), strict=True), "number of rows, got 3 and 4"),
    "loader without batches": (
        lambda: DataLoader(TensorDataset(X, Y), batch_size=None), "got a single number in batch 0"
    ),
    "inputs without samples": (lambda: [(X[:0], Y)], "the same number of rows, got 0 and 7"),
    "used generator": (lambda: iter([]), "at least one sample, got none; an iterator can be read"),
    "array of objects": (lambda: (np.array([Both, None]), Y), "of numbers, .* of dtype object"),
    "array of texts": (lambda: (np.array(["a"]), Y), "inputs must be arrays of numbers"),
    "masked array": (lambda: (np.ma.masked_array([1.0], [True]), Y[:1]), "got one that is masked"),
    "extended precision": (lambda: (X.numpy().astype(np.longdouble), Y), "arrays that torch can"),
    "sparse": (lambda: (X.to_sparse(), Y), "inputs must be ordinary dense.* torch.sparse_coo"),
    "sparse, nested": (lambda: (X, {"y": [X.to_sparse_csr()]}), "targets must be ord.*sparse_csr"),
    "quantized": (
        lambda: (torch.quantize_per_tensor(X.float(), 1.0, 0, torch.qint8), Y), "is quantized"
    ),
    "meta": (lambda: (X.to("meta"), Y), "on the meta device"),
    "packed sequence": (lambda: (pack_sequence([X, X]), Y), "got PackedSequence"),
    "targets of an object": (lambda: (X, Record(X, Y)), "targets must be a tensor, .* got Record"),
    "a set": (lambda: ({1.0, 2.0}, Y), "inputs must be a tensor, .* got set"),
    "numbers": (lambda: ([1.0, 2.0], Y[:2]), "inputs must hold at least one tensor"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:.*quantiz:UserWarning")
@pytest.mark.parametrize("form", REFUSED)
def test_read_batches_refuses_what_has_no_single_reading(form: str) -> None:
    build, message = REFUSED[form]
    with pytest.raises(ValueError, match=message):
        read(build())


def test_read_batches_reads_like_inputs_and_targets_in_a_list_as_one_batch() -> None:
    for part in ((X, Y), {"x": X, "y": Y}):
        (batch,) = read([(part, part)])
        assert batch.num_samples == 7
        assert torch.equal(next(named_tensors(batch.targets, ""))[1], X)


def test_objective_of_a_dataset_equals_that_of_one_batch() -> None:
    model = nn.Linear(3, 4).double()
    whole = Objective(model, nn.CrossEntropyLoss(), (X, Y))
    part = Objective(model, nn.CrossEntropyLoss(), TensorDataset(X, Y))
    assert torch.equal(whole.loss(whole.theta), part.loss(part.theta))
