"""Straight lines and planes through points of parameter space, and the loss on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hesspipe.data.dataset import Dataset
from hesspipe.landscape.losses import LineLosses, PlaneLosses
from hesspipe.networks.evaluation import loss_and_accuracy
from hesspipe.objective.flattening import unflatten
from hesspipe.objective.reductions import LossFunction
from hesspipe.progress import bar_options


@dataclass(frozen=True)
class Plane:
    """The plane through three points, with orthonormal coordinates.

    Attributes
    ----------
    origin : Tensor, shape (P,), float64
        The first point.
    axes : Tensor, shape (P, 2), float64
        Orthonormal columns; the second point lies on the first axis, on its positive side, and
        the third on the positive side of the second axis.
    """

    origin: Tensor
    axes: Tensor

    def point(self, first: float, second: float) -> Tensor:
        """Compute the point with these two coordinates, shape (P,)."""
        return self.origin + self.axes @ self.axes.new_tensor([first, second])

    def project(self, theta: Tensor) -> tuple[float, float, float]:
        """Compute a point's two coordinates in the plane and its distance from the plane."""
        offset = theta.double() - self.origin
        first, second = (self.axes.mT @ offset).tolist()
        distance = (offset - self.axes @ (self.axes.mT @ offset)).norm().item()
        return first, second, distance


def line_coefficients(num_between: int, num_beyond: int) -> list[float]:
    """Space coefficients of a line evenly, with 0 and 1 exactly among them.

    Parameters
    ----------
    num_between : int
        Intervals between 0 and 1.
    num_beyond : int
        Intervals beyond each end.

    Examples
    --------
    >>> line_coefficients(num_between=4, num_beyond=1)
    [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    """
    if num_between < 1 or num_beyond < 0:
        raise ValueError(
            "num_between must be at least 1 and num_beyond at least 0, got "
            f"{num_between} and {num_beyond}"
        )
    return [place / num_between for place in range(-num_beyond, num_between + num_beyond + 1)]


def evaluate_line(
    model: nn.Module,
    data: Dataset,
    first: Tensor,
    second: Tensor,
    coefficients: Sequence[float],
    *,
    loss_fn: LossFunction,
    progress: bool | None = None,
) -> LineLosses:
    """Evaluate a network on the straight line through two points.

    Points are computed in float64 and then rounded to the model's dtype, so that coefficients 0
    and 1 give the two points exactly.

    Parameters
    ----------
    model : nn.Module
        Not changed; gives architecture, dtype and device.
    data : Dataset
        In the model's dtype, on its device.
    first, second : Tensor, shape (P,)
        Where the coefficient is 0 and 1.
    coefficients : sequence of float
        Of (1 - coefficient) first + coefficient second.
    loss_fn : callable (outputs, targets) -> scalar Tensor
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    LineLosses
        With a table of coefficient, train_loss, train_accuracy, test_loss, test_accuracy; losses in
        the unit of the loss (nats). Entries that are undefined (without held-out data or class
        labels) are None.

    Raises
    ------
    ArithmeticError
        If a loss is not finite, with the coefficient.
    ValueError
        If a point is not a vector of the network's parameters.
    """
    network, rows = copy.deepcopy(model), []
    first, second = _checked(first, "first"), _checked(second, "second", len(first))
    for coefficient in tqdm(coefficients, desc="line", unit="point", **bar_options(progress)):
        _put(network, (1 - coefficient) * first + coefficient * second)
        train = loss_and_accuracy(network, data.train_inputs, data.train_targets, loss_fn)
        test: tuple[float | None, float | None] = (None, None)
        if len(data.test_inputs):
            test = loss_and_accuracy(network, data.test_inputs, data.test_targets, loss_fn)
        _check_finite(train[0] + (test[0] or 0.0), f"coefficient {coefficient}")
        rows.append((coefficient, *train, *test))
    columns = ["coefficient", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    return LineLosses(pd.DataFrame(rows, columns=columns))


def plane_through(first: Tensor, second: Tensor, third: Tensor) -> Plane:
    """Construct the plane through three points.

    Parameters
    ----------
    first, second, third : Tensor, shape (P,)

    Raises
    ------
    ValueError
        If the points lie on one line, differ in length, or are not finite.
    """
    first = _checked(first, "first")
    second, third = _checked(second, "second", len(first)), _checked(third, "third", len(first))
    columns = torch.stack([second - first, third - first], 1)
    axes, triangle = torch.linalg.qr(columns)
    signs = triangle.diagonal().sign()
    if triangle.diagonal().abs().min() <= 1e-12 * columns.norm():
        raise ValueError("the three points of a plane must not lie on one line, got collinear ones")
    return Plane(first, axes * signs)


def plane_grid(points: Sequence[tuple[float, float]], num_points: int, margin: float) -> Tensor:
    """Construct a grid that covers points of a plane with a margin.

    Parameters
    ----------
    points : sequence of (float, float)
        Points that the grid must cover.
    num_points : int
        Grid points in each direction.
    margin : float
        Margin on each side, as a share of the points' larger extent.

    Returns
    -------
    Tensor, shape (num_points**2, 2), float64
        Coordinates; the second one varies fastest.

    Raises
    ------
    ValueError
        If the grid would not cover the points, or there are none.
    """
    places = torch.tensor(points, dtype=torch.float64, device="cpu")
    if places.ndim != 2 or places.shape[1] != 2 or not places.isfinite().all():
        raise ValueError(f"points must be pairs of finite coordinates, got {points}")
    if num_points < 2 or not margin >= 0:
        raise ValueError(
            "num_points must be at least 2 and margin at least 0, so that the grid covers the "
            f"points, got {num_points} and {margin}"
        )
    low, high = places.amin(0), places.amax(0)
    room = margin * (high - low).max()
    low, high = low - room, high + room
    steps = torch.linspace(0, 1, num_points, dtype=torch.float64, device="cpu")
    return torch.cartesian_prod(*(low + steps[:, None] * (high - low)).unbind(1))


def evaluate_plane(
    model: nn.Module,
    data: Dataset,
    plane: Plane,
    grid: Tensor,
    *,
    loss_fn: LossFunction,
    progress: bool | None = None,
) -> PlaneLosses:
    """Evaluate a network's training loss at points of a plane.

    Parameters
    ----------
    model, data, loss_fn
        See `evaluate_line`.
    plane : Plane
    grid : Tensor, shape (n, 2)
        Coordinates in the plane.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    PlaneLosses
        With a table of first, second (the coordinates, in units of the parameters), train_loss
        (nats).

    Raises
    ------
    ArithmeticError
        If a loss is not finite, with the point.
    """
    network, rows = copy.deepcopy(model), []
    for first, second in tqdm(grid.tolist(), desc="plane", unit="point", **bar_options(progress)):
        _put(network, plane.point(first, second))
        loss, _ = loss_and_accuracy(network, data.train_inputs, data.train_targets, loss_fn)
        _check_finite(loss, f"the point ({first:.4g}, {second:.4g})")
        rows.append((first, second, loss))
    return PlaneLosses(pd.DataFrame(rows, columns=["first", "second", "train_loss"]))


def _checked(point: Tensor, name: str, length: int | None = None) -> Tensor:
    """Convert a point to float64; refuse what would be broadcast to another point."""
    if point.ndim != 1 or (length is not None and len(point) != length):
        kind = "a vector" if length is None else f"a vector of {length} numbers"
        raise ValueError(f"{name} must be {kind}, got shape {tuple(point.shape)}")
    if not point.isfinite().all():
        raise ValueError(f"{name} must be finite, got nan or inf")
    return point.detach().double()


def _put(network: nn.Module, theta: Tensor) -> None:
    """Fill a network's parameters from a vector, rounding to their dtype."""
    parameters = dict(network.named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    size = sum(shape.numel() for shape in shapes.values())
    if len(theta) != size:
        raise ValueError(
            f"a point must have a number for each of the network's {size} parameters, got "
            f"{len(theta)}"
        )
    with torch.no_grad():
        for name, part in unflatten(theta, shapes).items():
            parameters[name].copy_(part)


def _check_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise ArithmeticError(
            f"the loss must be finite, got {loss} at {where}; evaluate closer to the solutions"
        )
