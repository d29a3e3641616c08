"""Class-mean gradients against a loop over samples, and overlaps where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import assert_close, labels, network, normal
from torch import nn

from hesspipe.curvature.class_means import (
    class_mean_gradients,
    direction_groups,
    squared_overlaps,
)
from hesspipe.curvature.dense import ggn_matrix
from hesspipe.objective.objective import Objective


def test_class_mean_gradients_are_those_of_a_loop_over_samples() -> None:
    model, inputs, targets = network([4, 5, 3]), normal(12, 4), labels(12, 3)
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    found = class_mean_gradients(objective)
    for label in range(3):
        rows = []
        for sample in inputs[targets == label]:
            output = model(sample[None])[0]
            rows.append(
                torch.stack(
                    [
                        torch.cat(
                            [
                                gradient.flatten()
                                for gradient in torch.autograd.grad(
                                    value, list(model.parameters()), retain_graph=True
                                )
                            ]
                        )
                        for value in output
                    ]
                )
            )
        assert_close(found[label], torch.stack(rows).mean(0))
    batches = [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])]
    split = class_mean_gradients(Objective(model, nn.CrossEntropyLoss(), batches))
    assert_close(split, found)


class _Centered(nn.Module):
    """Of inputs by name; relative to their mean over the batch if samples are coupled."""

    def __init__(self, is_coupled: bool) -> None:
        super().__init__()
        self.network, self.is_coupled = network([4, 5, 3]), is_coupled

    def forward(self, *, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.network(torch.cat([first, second], 1))
        return outputs - outputs.mean(0) if self.is_coupled else outputs


@pytest.mark.parametrize(("is_coupled", "sizes"), [(False, [14]), (False, [9, 5]), (True, [14])])
def test_class_mean_gradients_are_means_of_the_rows_of_jacobians(
    is_coupled: bool, sizes: list[int]
) -> None:
    model, inputs, targets = _Centered(is_coupled), normal(14, 4), labels(14, 3)
    targets[:2] = -100
    batches, jacobians = [], []
    for part, classes in zip(inputs.split(sizes), targets.split(sizes), strict=True):
        fields = {"first": part[:, :1], "second": part[:, 1:]}
        batches.append((fields, classes))

        def outputs(*values: torch.Tensor) -> torch.Tensor:
            named = dict(zip(dict(model.named_parameters()), values, strict=True))
            # The function is called before the loop goes on.
            found: torch.Tensor = torch.func.functional_call(model, named, (), fields)  # noqa: B023
            return found

        rows = torch.autograd.functional.jacobian(outputs, tuple(model.parameters()))
        jacobians.append(torch.cat([row.flatten(2) for row in rows], 2))
    every = torch.cat(jacobians)  # (N, C, P)
    found = class_mean_gradients(Objective(model, nn.CrossEntropyLoss(), batches))
    for label in range(3):
        assert_close(found[label], every[targets == label].mean(0))


def test_class_without_samples_is_refused() -> None:
    data = normal(4, 4), torch.tensor([0, 0, 1, 1])
    objective = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), data)
    with pytest.raises(ValueError, match="each class must have at least one sample"):
        class_mean_gradients(objective)


def test_class_mean_gradients_leave_out_ignored_samples() -> None:
    model, inputs, targets = network([4, 5, 3]), normal(12, 4), labels(12, 3)
    kept = torch.arange(12) % 4 != 0
    ignoring = torch.where(kept, targets, -100)
    found = class_mean_gradients(Objective(model, nn.CrossEntropyLoss(), (inputs, ignoring)))
    expected = Objective(model, nn.CrossEntropyLoss(), (inputs[kept], targets[kept]))
    assert_close(found, class_mean_gradients(expected))


@pytest.mark.parametrize("targets", [normal(12, 3), labels(12, 3).unsqueeze(1)])
def test_class_mean_gradients_need_labels(targets: torch.Tensor) -> None:
    def loss_fn(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().mean()

    objective = Objective(network([4, 5, 3]), loss_fn, (normal(12, 4), targets))
    with pytest.raises(ValueError, match=r"one class label per sample \(12\).*got torch"):
        class_mean_gradients(objective)


def test_ggn_of_equal_samples_in_each_class_lies_in_the_span_of_every_output() -> None:
    # With one gradient per class, the mean is that gradient, and nothing is outside the span.
    inputs = normal(3, 4).repeat(4, 1)
    targets = torch.arange(3).repeat(4)
    objective = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), (inputs, targets))
    groups = direction_groups(class_mean_gradients(objective))
    values, vectors = torch.linalg.eigh(ggn_matrix(objective))
    num_positive = int((values > 1e-10 * values[-1]).sum())
    overlaps, rank = squared_overlaps(vectors[:, -num_positive:], groups["every"])
    assert rank == 3 * 2 >= num_positive
    assert overlaps.numpy() == pytest.approx(np.ones(num_positive), abs=1e-10)


def test_linear_model_with_equal_inputs_has_no_curvature_along_the_flat_direction() -> None:
    # All samples have the same gradients; along one combination of them softmax is constant.
    inputs, targets = normal(1, 4).repeat(6, 1), torch.arange(3).repeat(2)
    objective = Objective(network([4, 3]), nn.CrossEntropyLoss(), (inputs, targets))
    groups = direction_groups(class_mean_gradients(objective))
    matrix = ggn_matrix(objective)
    flat = groups["flat"][0] / groups["flat"][0].norm()
    scale = float(torch.linalg.matrix_norm(matrix, ord=2))
    assert float(flat @ matrix @ flat) <= 1e-14 * scale
    values, vectors = torch.linalg.eigh(matrix)
    assert int((values > 1e-10 * scale).sum()) == 2  # k - 1
    overlaps, rank = squared_overlaps(vectors[:, -2:], groups["shared"])
    assert rank == 2
    assert overlaps.numpy() == pytest.approx(np.ones(2), abs=1e-10)


def test_squared_overlaps_count_dependent_directions_once() -> None:
    directions = torch.tensor(
        [[3.0, 0, 0, 0], [0, 1e-3, 0, 0], [3.0, 1e-3, 0, 0]], dtype=torch.float64
    )
    vectors = torch.tensor([[0.6, 0], [0, 0], [0.8, 0], [0, 1]], dtype=torch.float64)
    overlaps, rank = squared_overlaps(vectors, directions)
    assert rank == 2
    assert overlaps.tolist() == pytest.approx([0.36, 0.0], abs=1e-15)


def test_overlap_of_a_random_vector_is_rank_over_dimension() -> None:
    directions, vectors = normal(6, 60, seed=3), normal(60, 400, seed=4)
    overlaps, rank = squared_overlaps(vectors / vectors.norm(dim=0), directions)
    assert rank == 6
    assert float(overlaps.mean()) == pytest.approx(0.1, abs=4 * float(overlaps.std()) / 20)
