"""Groups of class-mean gradients by loops, and the rank of nearly dependent directions."""

from __future__ import annotations

import pytest
import torch
from problems import EPS, labels, network, normal
from torch import nn

from hesspipe.curvature.class_means import (
    class_mean_gradients,
    direction_groups,
    squared_overlaps,
)
from hesspipe.objective.objective import Objective


@pytest.mark.parametrize("num_classes", [1, 2, 4])
def test_direction_groups_are_those_of_loops(num_classes: int) -> None:
    gradients = normal(num_classes, num_classes, 7)
    groups = direction_groups(gradients)
    own, every, shared, flat = [], [], [], []
    for label in range(num_classes):
        mean = sum(gradients[label, output] for output in range(num_classes)) / num_classes
        flat.append(mean)
        own.append(gradients[label, label] - mean)
        every += [gradients[label, output] - mean for output in range(num_classes)]
    for output in range(num_classes):
        parts = [gradients[label, output] - flat[label] for label in range(num_classes)]
        shared.append(sum(parts) / num_classes)
    expected = {"own": own, "every": every, "shared": shared, "flat": flat}
    assert groups.keys() == expected.keys()
    for name, rows in expected.items():
        difference = groups[name] - torch.stack(rows)  # type: ignore[arg-type]
        assert difference.abs().max() <= 20 * EPS, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("share", "rank"), [(0.25, 2), (4.0, 3)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_squared_overlaps_count_a_direction_above_rounding_only(
    dtype: torch.dtype, share: float, rank: int, scale: float
) -> None:
    # Rounding of a matrix with 20 columns and a largest singular value of 2 is 40 eps.
    singular = torch.tensor([2.0, 1.0, share * 40 * torch.finfo(dtype).eps], dtype=dtype)
    directions = torch.zeros(3, 20, dtype=dtype)
    directions[range(3), range(3)] = scale * singular
    vectors = torch.eye(20, 4, dtype=dtype)
    overlaps, found = squared_overlaps(vectors, directions)
    assert found == rank
    expected = torch.tensor([1.0] * rank + [0.0] * (4 - rank), dtype=dtype)
    assert (overlaps - expected).abs().max() <= 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("num_directions", [1, 5, 12, 30])
def test_squared_overlaps_are_those_of_the_projection(num_directions: int) -> None:
    directions, vectors = normal(num_directions, 12, seed=3), normal(12, 6, seed=4)
    vectors /= vectors.norm(dim=0)
    overlaps, rank = squared_overlaps(vectors, directions)
    projection = torch.linalg.pinv(directions) @ directions
    assert rank == min(num_directions, 12)
    expected = ((projection @ vectors) * vectors).sum(0)
    assert (overlaps - expected).abs().max() <= 1e3 * EPS


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_class_mean_gradients_are_the_same_for_labels_of_every_integer_dtype(
    dtype: torch.dtype,
) -> None:
    def loss_fn(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets.long())

    model, inputs, targets = network([4, 5, 3]), normal(12, 4), labels(12, 3)
    expected = class_mean_gradients(Objective(model, loss_fn, (inputs, targets)))
    found = class_mean_gradients(Objective(model, loss_fn, (inputs, targets.to(dtype))))
    assert torch.equal(found, expected)
    assert found.shape == (3, 3, expected.shape[-1])
    assert not found.requires_grad
