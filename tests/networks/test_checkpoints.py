"""Checkpoints: exact after writing and reading, and refused by other networks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import labels, network, normal, theta_of
from safetensors.torch import load_file
from torch import nn
from user_functions import Normalized, Tied

from hesspipe.errors import DamagedFileError
from hesspipe.files import write_tensors
from hesspipe.networks.checkpoints import Checkpoint, read_checkpoint
from hesspipe.objective.objective import Objective

PROVENANCE = {"experiment": "example", "seed": 3}
NETWORKS: dict[str, Any] = {
    "float64": lambda: network([4, 5, 3]),
    "float32": lambda: network([4, 5, 3]).float(),
    "ties": lambda: Tied(4),
    "buffers": Normalized,
    "eleven layers": lambda: nn.Sequential(*(nn.Linear(2, 2) for _ in range(11))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpoint_brings_a_network_back_to_the_last_bit(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, other = NETWORKS[name](), NETWORKS[name]()
    with torch.no_grad():
        for value in other.parameters():
            value.fill_(5.0)
    path = tmp_path / "step7.safetensors"
    Checkpoint.of(trained, 7, PROVENANCE).write(path)
    found = read_checkpoint(path, other)
    assert (found.step, found.provenance) == (7, PROVENANCE)
    assert found.theta.dtype == next(trained.parameters()).dtype
    assert torch.equal(found.theta.double(), theta_of(trained))
    assert found.into(other) is other
    assert other.state_dict().keys() == trained.state_dict().keys()
    for key, value in trained.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpoint_file_holds_the_state_dict_by_name(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    Checkpoint.of(model, 0, {}).write(tmp_path / "step0.safetensors")
    stored = load_file(tmp_path / "step0.safetensors")
    second_names = {"head.weight"} if name == "ties" else set()
    assert stored.keys() == model.state_dict().keys() - second_names
    for key, value in stored.items():
        assert value.dtype == model.state_dict()[key].dtype
        assert torch.equal(value, model.state_dict()[key])


def test_theta_of_a_checkpoint_is_that_of_an_objective() -> None:
    model = network([4, 5, 3])
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)))
    checkpoint = Checkpoint.of(model, 0, {})
    assert torch.equal(checkpoint.theta, objective.theta)
    assert list(checkpoint.shapes) == objective.names
    assert list(checkpoint.shapes.values()) == objective.shapes


def test_checkpoint_is_a_copy_and_fills_a_network_with_copies() -> None:
    model, other = network([4, 5, 3]), network([4, 5, 3], std=0.1)
    checkpoint = Checkpoint.of(model, 0, {})
    before = checkpoint.theta.clone()
    checkpoint.into(other)
    with torch.no_grad():
        for value in [*model.parameters(), *other.parameters()]:
            value.zero_()
    assert torch.equal(checkpoint.theta, before)


def test_checkpoint_fills_a_network_of_another_dtype_with_rounded_numbers() -> None:
    checkpoint = Checkpoint.of(network([4, 5, 3]), 0, {})
    rounded = checkpoint.into(network([4, 5, 3]).float())
    assert torch.equal(theta_of(rounded), checkpoint.theta.float().double())


def test_equal_checkpoints_are_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for number, path in enumerate(paths):
        notes = dict(sorted(PROVENANCE.items(), reverse=bool(number % 2)))
        Checkpoint.of(network([4, 5, 3]), 2, notes).write(path)
    again = tmp_path / "again.safetensors"
    Checkpoint.read(paths[0]).write(again)
    assert len({path.read_bytes() for path in [*paths, again]}) == 1


def test_origin_says_which_point_it_is() -> None:
    model = network([4, 5, 3])
    assert Checkpoint.of(model, 4, PROVENANCE).origin == {**PROVENANCE, "step": 4}
    aligned = Checkpoint.of(model, 4, {**PROVENANCE, "aligned_to": 1, "model": {}})
    assert aligned.origin == {**PROVENANCE, "step": 4, "aligned_to": 1}


@pytest.mark.parametrize(
    ("widths", "mistake"),
    [
        ([4, 6, 3], r"has 1.weight of shape \(5, 4\), not \(6, 4\)"),
        ([4, 5, 5, 3], r"lacks 5.weight, lacks 5.bias"),
        ([4, 3], r"has 3.weight, which the network lacks"),
    ],
)
def test_checkpoint_of_another_network_is_refused_and_changes_nothing(
    tmp_path: Path, widths: list[int], mistake: str
) -> None:
    path, other = tmp_path / "step0.safetensors", network(widths)
    Checkpoint.of(network([4, 5, 3]), 0, {}).write(path)
    before = copy.deepcopy(other.state_dict())
    message = rf"step0.safetensors .*must be of this network, but it .*{mistake}"
    with pytest.raises(DamagedFileError, match=message):
        read_checkpoint(path, other)
    with pytest.raises(ValueError, match=mistake):
        Checkpoint.read(path).into(other)
    assert all(torch.equal(other.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("header", "mistake"),
    [
        ({}, "lacks 'parameters'"),
        ({"parameters": '["1.weight"]', "step": "0"}, "lacks 'provenance'"),
        ({"parameters": '["1.weight"]', "provenance": "{}"}, "lacks 'step'"),
        ({"parameters": '["other"]', "step": "0", "provenance": "{}"}, "lacks 'other'"),
        ({"parameters": '["1.weight"]', "step": "two", "provenance": "{}"}, "'two'"),
        ({"parameters": "[]", "step": "0", "provenance": "{}"}, "not a checkpoint"),
        ({"parameters": "nothing", "step": "0", "provenance": "{}"}, "not a checkpoint"),
    ],
)
def test_tensors_that_are_no_checkpoint_are_refused(
    tmp_path: Path, header: dict[str, str], mistake: str
) -> None:
    path = tmp_path / "step0.safetensors"
    write_tensors({"1.weight": torch.ones(2, 2)}, path, header)
    with pytest.raises(DamagedFileError, match=rf"not a checkpoint: .*{mistake}|{mistake}"):
        Checkpoint.read(path)
