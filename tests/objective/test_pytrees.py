"""Inputs and outputs of several tensors: length, slices, joining and splitting."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from inspect import signature
from typing import Any, NamedTuple

import pytest
import torch
from problems import normal

from hesspipe.objective.pytrees import (
    Fields,
    call_arguments,
    join_outputs,
    map_tensors,
    named_tensors,
)


class Pair(NamedTuple):
    """Two outputs with names."""

    left: Any
    right: Any


def test_fields_are_measured_and_sliced_by_samples() -> None:
    fields = Fields({"a": normal(5, 2), "b": normal(5, 3, 4), "flag": True})
    part = fields[1:3]
    assert (len(fields), len(part)) == (5, 2)
    assert torch.equal(part.values["b"], normal(5, 3, 4)[1:3])
    assert part.values["flag"] is True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": normal(5, 2), "table": normal(3, 2)}, r"one row per sample, got rows \{'x': 5, 'ta"),
        ({"x": normal(5, 2), "scale": torch.tensor(1.0)}, "one row per sample"),
        ({"flag": True}, "at least one tensor"),
        (normal(2).numpy(), "got ndarray; convert arrays with torch.as_tensor"),
    ],
)
def test_inputs_without_one_row_per_sample_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fields(values)


def test_call_arguments_are_clones_in_their_places() -> None:
    inputs = normal(2, 3)
    for values, place in (
        (inputs, lambda args, kwargs: args[0]),
        (Fields((inputs, None)), lambda args, kwargs: args[0]),
        (Fields(UserDict(x=inputs)), lambda args, kwargs: kwargs["x"]),
        (Fields(UserDict(y={"z": inputs})), lambda args, kwargs: args[0]["y"]["z"]),
    ):
        argument = place(*call_arguments(values, signature(lambda x, mask=None: None)))
        assert torch.equal(argument, inputs)
        assert argument.data_ptr() != inputs.data_ptr()


NESTED = [
    normal(4, 3),
    normal(4),
    normal(4, 2, 3),
    (normal(4, 2), {"scores": normal(4, 3, 2), "state": None}),
    [normal(4), normal(4, 1)],
    Pair(normal(4, 2), normal(4, 3)),
    OrderedDict(logits=normal(4, 3), hidden=(normal(4, 2), normal(4, 5))),
]


@pytest.mark.parametrize("outputs", NESTED)
def test_split_inverts_join_outputs(outputs: Any) -> None:
    rows, layout = join_outputs(outputs, 4)
    assert rows.shape == (4, sum(tensor[0].numel() for _, tensor in named_tensors(outputs, "")))
    back = layout.split(rows)
    assert type(back) is type(outputs)
    pairs = list(zip(named_tensors(back, ""), named_tensors(outputs, ""), strict=True))
    assert all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)
    # Only some of the samples.
    first = layout.split(rows[:2])
    assert all(len(tensor) == 2 for _, tensor in named_tensors(first, ""))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (normal(3, 2), r"outputs must have one row per sample \(4\), got shape \(3, 2\)"),
        ((normal(4, 2), torch.tensor(1.0)), r"outputs\[1\] must have one row per sample"),
        ({"label": torch.ones(4, dtype=torch.int64)}, r"outputs\['label'\] must be.*int64"),
        (None, "must return tensors, got NoneType"),
    ],
)
def test_outputs_without_rows_are_named(outputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_outputs(outputs, 4)


def test_map_tensors_reaches_every_tensor() -> None:
    for outputs in NESTED:
        doubled = map_tensors(lambda tensor: 2 * tensor, outputs)
        for (_, one), (_, other) in zip(
            named_tensors(doubled, ""), named_tensors(outputs, ""), strict=True
        ):
            assert torch.equal(one, 2 * other)
