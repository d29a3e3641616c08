"""Lines, planes and aligned networks between checkpoints, for Figures 8 and 9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from hesspipe.experiments.loading import Solution, load_solution
from hesspipe.forecasts import plane_bytes
from hesspipe.hardware import exact_kernels, require
from hesspipe.landscape import alignment, paths
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.tables.store import Result


@exact_kernels()
def evaluate_line(
    *,
    path_to_dataset: str | Path,
    path_to_first: str | Path,
    path_to_second: str | Path,
    model: Mapping[str, Any],
    lines: Mapping[str, int],
) -> Result:
    """Evaluate the line through two checkpoints on the data that their histories were measured on.

    Parameters
    ----------
    path_to_dataset, path_to_first, path_to_second : path
        The coefficient is 0 at the first checkpoint and 1 at the second.
    model : mapping
        The experiment's `model` in config.yaml.
    lines : mapping
        See `hesspipe.landscape.paths.line_coefficients`.

    Returns
    -------
    Result
        Of kind "line"; see `hesspipe.landscape.paths.evaluate_line`. The provenance has that of
        the second checkpoint's training, and both ends.
    """
    solution = load_solution(path_to_dataset, path_to_second, model)
    (first,), second = solution.read_others([path_to_first]), solution.checkpoint
    line = paths.evaluate_line(
        solution.network,
        solution.recorded_data,
        _point(first, solution),
        _point(second, solution),
        paths.line_coefficients(**lines),
        loss_fn=solution.loss_fn,
        progress=True,
    )
    ends = {"first": first.origin, "second": second.origin}
    return Result("line", line.table, {**second.provenance, **ends})


def align_units(
    *,
    path_to_dataset: str | Path,
    path_to_reference: str | Path,
    path_to_other: str | Path,
    model: Mapping[str, Any],
) -> Checkpoint:
    """Put the hidden units of a checkpoint in the order of another seed's.

    The network computes the same function afterwards; this is shown on training data.

    Parameters
    ----------
    path_to_dataset, path_to_reference, path_to_other : path
    model : mapping
        The experiment's `model` in config.yaml.

    Returns
    -------
    Checkpoint
        The other one, permuted; its provenance names the seed that it is aligned to.
    """
    reference, other = (
        load_solution(path_to_dataset, path, model) for path in (path_to_reference, path_to_other)
    )
    aligned = alignment.align_units(
        _sequential(reference.network), _sequential(other.network), other.data.train_inputs
    )
    seed = reference.checkpoint.provenance["seed"]
    provenance = {**other.checkpoint.provenance, "aligned_to": seed}
    return Checkpoint.of(aligned, other.checkpoint.step, provenance)


@exact_kernels()
def evaluate_plane(
    *,
    path_to_dataset: str | Path,
    paths_to_parts: Sequence[Sequence[str | Path]],
    path_to_other: str | Path,
    model: Mapping[str, Any],
    planes: Mapping[str, Any],
) -> tuple[Result, Result]:
    """Evaluate the plane through the ends of both parts and of another seed's Part II.

    Parameters
    ----------
    path_to_dataset : path
    paths_to_parts : two sequences of path
        Checkpoints of Part I and of Part II, each in the order of training.
    path_to_other : path
        The third solution.
    model : mapping
        The experiment's `model` in config.yaml.
    planes : mapping
        num_points and margin; see `hesspipe.landscape.paths.plane_grid`.

    Returns
    -------
    grid : Result
        Of kind "plane": first, second, train_loss.
    points : Result
        Of kind "plane_points": point ("large batch", "small batch", "other seed" or "path"), step,
        first, second, distance; the path of training is projected to the plane. The provenance of
        both has that of Part II, and the three ends.
    """
    solution = load_solution(path_to_dataset, paths_to_parts[1][-1], model)
    _require_memory(solution.checkpoint.theta, sum(map(len, paths_to_parts)) + 1)
    first_part, second_part = (solution.read_others(part) for part in paths_to_parts)
    (other,) = solution.read_others([path_to_other])
    large, small = first_part[-1], second_part[-1]
    plane = paths.plane_through(*(_point(end, solution) for end in (large, small, other)))
    offset = large.step
    marked = [("path", part.step, part) for part in first_part]
    marked += [("path", offset + part.step, part) for part in second_part]
    marked += [
        ("large batch", offset, large),
        ("small batch", offset + small.step, small),
        ("other seed", offset + other.step, other),
    ]
    points = pd.DataFrame(
        [(name, step, *plane.project(_point(end, solution))) for name, step, end in marked],
        columns=["point", "step", "first", "second", "distance"],
    )
    corners = points.tail(3)[["first", "second"]].itertuples(index=False)
    grid = paths.evaluate_plane(
        solution.network,
        solution.recorded_data,
        plane,
        paths.plane_grid([(first, second) for first, second in corners], **planes),
        loss_fn=solution.loss_fn,
        progress=True,
    )
    ends = {"first": large.origin, "second": small.origin, "third": other.origin}
    provenance = {**small.provenance, **ends}
    return Result("plane", grid.table, provenance), Result("plane_points", points, provenance)


def _require_memory(theta: Tensor, number: int) -> None:
    """Refuse a plane through so many checkpoints that they do not fit into memory."""
    require(
        plane_bytes(number, theta.numel(), theta.element_size()),
        f"the plane through {number:,} checkpoints of P = {theta.numel():,} parameters",
        "use fewer checkpoints",
    )


def _point(checkpoint: Checkpoint, solution: Solution) -> Tensor:
    """A checkpoint's parameters, shape (P,), float64, on the device of the solution's data."""
    return checkpoint.theta.to(solution.data.train_inputs.device).double()


def _sequential(network: nn.Module) -> nn.Sequential:
    if not isinstance(network, nn.Sequential):
        raise ValueError(
            f"a network to align must be a Sequential, got {type(network).__name__}; permute its "
            "units yourself"
        )
    return network
