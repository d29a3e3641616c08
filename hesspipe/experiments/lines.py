"""From checkpoints to lines, planes and aligned networks: behind Figures 8 and 9."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from hesspipe.data.dataset import Dataset, read_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.files import write_tensors
from hesspipe.hardware import exact_kernels, pick_device
from hesspipe.landscape.alignment import align_units
from hesspipe.landscape.paths import (
    evaluate_line,
    evaluate_plane,
    line_coefficients,
    parameter_vector,
    plane_grid,
    plane_through,
)
from hesspipe.networks.build import build_network
from hesspipe.networks.training import load_checkpoint


@dataclass(frozen=True)
class Solution:
    """A network at a checkpoint, and where the checkpoint is from.

    Attributes
    ----------
    network : nn.Module
        In the dtype of its training, on the device found at run time.
    about : dict
        The provenance of its training.
    end : dict
        experiment, seed and step, and for an aligned one the seed it is aligned to.
    """

    network: nn.Module
    about: dict[str, Any]
    end: dict[str, Any]


def load_solution(
    dataset: Dataset, path_to_checkpoint: str | Path, model: dict[str, Any]
) -> Solution:
    """Load a network of a configured experiment.

    Parameters
    ----------
    dataset : Dataset
        What it was trained on.
    path_to_checkpoint : path
    model : dict
        The model's entry in config.yaml.

    Raises
    ------
    DamagedFileError
        If the checkpoint is truncated, of another model, or without provenance.
    """
    # The numbers drawn here are overwritten by the checkpoint.
    inputs = dataset.train_inputs[:1]
    network = build_network(inputs, dataset.num_classes, 0, model, inputs.dtype)
    checkpoint = load_checkpoint(network, path_to_checkpoint)
    try:
        about, step = json.loads(checkpoint["provenance"]), int(checkpoint["step"])
    except (KeyError, ValueError) as error:
        raise DamagedFileError(path_to_checkpoint, f"no provenance: {error}") from None
    end = {"experiment": about["experiment"], "seed": about["seed"], "step": step}
    if "aligned_to" in checkpoint:
        end["aligned_to"] = int(checkpoint["aligned_to"])
    dtype = getattr(torch, about["training"]["dtype"])
    return Solution(network.to(pick_device(), dtype), about, end)


def recorded_data(dataset: Dataset, training: dict[str, Any]) -> Dataset:
    """Give the data that a training's history is measured on, in its dtype, on the device.

    Parameters
    ----------
    dataset : Dataset
    training : dict
        The training's entry in config.yaml.
    """
    recorded = slice(training.get("num_recorded"))
    part = replace(
        dataset,
        train_inputs=dataset.train_inputs[recorded],
        train_targets=dataset.train_targets[recorded],
    )
    return part.to(getattr(torch, training["dtype"]), pick_device())


@exact_kernels()
def line_table(
    path_to_dataset: str | Path,
    path_to_first: str | Path,
    path_to_second: str | Path,
    model: dict[str, Any],
    lines: dict[str, int],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Evaluate the line through two checkpoints as their histories are measured.

    Parameters
    ----------
    path_to_dataset, path_to_first, path_to_second : path
        The coefficient is 0 at the first checkpoint and 1 at the second.
    model : dict
        The model's entry in config.yaml.
    lines : dict
        See `hesspipe.landscape.paths.line_coefficients`.

    Returns
    -------
    table : DataFrame
        See `hesspipe.landscape.paths.evaluate_line`.
    provenance : dict
        The second training's, and both ends.
    """
    dataset = read_dataset(path_to_dataset)
    first, second = (
        load_solution(dataset, path, model) for path in (path_to_first, path_to_second)
    )
    table = evaluate_line(
        first.network,
        recorded_data(dataset, second.about["training"]),
        parameter_vector(first.network),
        parameter_vector(second.network),
        line_coefficients(**lines),
        progress=True,
    )
    return table, second.about | {"first": first.end, "second": second.end}


def align_checkpoint(
    path_to_dataset: str | Path,
    path_to_reference: str | Path,
    path_to_other: str | Path,
    model: dict[str, Any],
    path_to_aligned: str | Path,
) -> None:
    """Write a checkpoint with its hidden units in the order of another seed's.

    Parameters
    ----------
    path_to_dataset, path_to_reference, path_to_other, path_to_aligned : path
    model : dict
        The model's entry in config.yaml.
    """
    dataset = read_dataset(path_to_dataset)
    reference, other = (
        load_solution(dataset, path, model) for path in (path_to_reference, path_to_other)
    )
    aligned = align_units(*(_sequential(solution.network) for solution in (reference, other)))
    note = {
        "provenance": json.dumps(other.about, sort_keys=True),
        "step": str(other.end["step"]),
        "aligned_to": str(reference.end["seed"]),
    }
    write_tensors(aligned.state_dict(), path_to_aligned, note)


@exact_kernels()
def plane_tables(
    path_to_dataset: str | Path,
    paths_to_parts: Sequence[Sequence[str | Path]],
    path_to_other: str | Path,
    model: dict[str, Any],
    planes: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Evaluate the plane through the ends of both parts and of another seed's Part II.

    Parameters
    ----------
    path_to_dataset : path
    paths_to_parts : two sequences of path
        Checkpoints of Part I and of Part II, each in the order of training.
    path_to_other : path
        The third solution.
    model : dict
        The model's entry in config.yaml.
    planes : dict
        num_points and margin; see `hesspipe.landscape.paths.plane_grid`.

    Returns
    -------
    grid : DataFrame
        first, second, train_loss.
    points : DataFrame
        point ("large batch", "small batch", "other seed" or "path"), step, first, second,
        distance; the path of training is projected to the plane.
    provenance : dict
        Of Part II, and the three ends.
    """
    dataset = read_dataset(path_to_dataset)
    parts = [[load_solution(dataset, path, model) for path in part] for part in paths_to_parts]
    other = load_solution(dataset, path_to_other, model)
    large, small = parts[0][-1], parts[1][-1]
    plane = plane_through(*(parameter_vector(end.network) for end in (large, small, other)))
    offset = large.end["step"]
    marked = [("path", part.end["step"], part) for part in parts[0]]
    marked += [("path", part.end["step"] + offset, part) for part in parts[1]]
    marked += [
        ("large batch", offset, large),
        ("small batch", offset + small.end["step"], small),
        ("other seed", offset + other.end["step"], other),
    ]
    points = pd.DataFrame(
        [
            (name, step, *plane.project(parameter_vector(solution.network)))
            for name, step, solution in marked
        ],
        columns=["point", "step", "first", "second", "distance"],
    )
    corners = points.tail(3)[["first", "second"]].itertuples(index=False)
    grid = plane_grid([(first, second) for first, second in corners], **planes)
    data = recorded_data(dataset, small.about["training"])
    table = evaluate_plane(small.network, data, plane, grid, progress=True)
    ends = {"first": large.end, "second": small.end, "third": other.end}
    return table, points, small.about | ends


def _sequential(network: nn.Module) -> nn.Sequential:
    if not isinstance(network, nn.Sequential):
        raise ValueError(
            f"a network to align must be a Sequential, got {type(network).__name__}; permute its "
            "units by hand"
        )
    return network
