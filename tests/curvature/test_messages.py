"""Arguments that do not fit, named before torch fails on them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hesspipe
from hesspipe.curvature.class_means import (
    class_mean_gradients,
    direction_groups,
    squared_overlaps,
)
from hesspipe.linalg.eigenpairs import eigenpairs

IS_BROKEN = {"model": False}


class Breakable(nn.Module):
    """A layer that can be made to fail after the objective has been built."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs[:, :2] if IS_BROKEN["model"] else inputs)


def test_class_mean_gradients_explain_errors_of_a_model_that_come_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = (inputs, torch.arange(6) % 2)
    objective = hesspipe.Objective(Breakable().double(), nn.CrossEntropyLoss(), data)
    assert class_mean_gradients(objective).shape == (2, 2, 8)
    monkeypatch.setitem(IS_BROKEN, "model", True)
    with pytest.raises(ValueError, match="model and loss_fn must run on the data") as found:
        class_mean_gradients(objective)
    assert "mat1 and mat2" in str(found.value)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 3), (1, 2, 2, 2), ()])
def test_direction_groups_refuse_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="gradients must be those of class_mean_gradients"):
        direction_groups(torch.zeros(shape))


@pytest.mark.parametrize(
    ("vectors", "directions"),
    [(torch.ones(4), torch.ones(2, 4)), (torch.ones(4, 1), torch.ones(4)),
     (torch.ones(4, 1), torch.ones(2, 3)), (torch.ones(4, 1), torch.ones(2, 4).double())],
)  # fmt: skip
def test_squared_overlaps_refuse_what_does_not_fit(
    vectors: torch.Tensor, directions: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="vectors and directions must be of"):
        squared_overlaps(vectors, directions)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_eigenpairs_say_what_to_write_for_a_small_matrix(size: int) -> None:
    matrix = torch.diag(torch.arange(1, size + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=rf"got 10; write num_largest={size} for all pairs"):
        eigenpairs(matrix)
    found = eigenpairs(matrix, num_largest=size)
    assert torch.allclose(found.eigenvalues, matrix.diagonal(), rtol=1e-12)
    with pytest.raises(ValueError, match=rf"must be 1 to P = {size}, got 0$"):
        eigenpairs(matrix, num_largest=0)
