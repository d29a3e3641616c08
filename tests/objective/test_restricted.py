"""Parts of an objective, in which all other parameters are constants."""

from __future__ import annotations

import pytest
import torch
from dense_reference import reference_hessian
from problems import assert_close, labels, network, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.objective.objective import Objective

DATA = normal(9, 4), labels(9, 3)


@pytest.mark.parametrize("names", [["3.weight"], ["1.weight", "5.bias"], ["5.bias"], None])
def test_restricted_objective_has_diagonal_blocks_of_the_matrices(names: list[str] | None) -> None:
    model = network([4, 5, 3, 3], "tanh")
    objective = Objective(model, nn.CrossEntropyLoss(), DATA, weight_decay=0.3)
    part = objective.restricted_to(objective.names if names is None else names)
    kept = torch.cat(
        [
            torch.full((shape.numel(),), names is None or name in names)
            for name, shape in zip(objective.names, objective.shapes, strict=True)
        ]
    )
    assert part.num_parameters == int(kept.sum())
    assert torch.equal(part.theta, objective.theta[kept])
    assert part.names == (names or objective.names)
    for matrix in (hesspipe.hessian_matrix, hesspipe.ggn_matrix, hesspipe.residual_matrix):
        assert_close(matrix(part), matrix(objective)[kept][:, kept])


@pytest.mark.parametrize("patterns", [["3.*"], ["1.weight", "5.bias"], ["*.bias"]])
def test_loss_of_a_part_decays_only_what_varies(patterns: list[str]) -> None:
    model = network([4, 5, 3, 3], "tanh")
    plain = Objective(model, nn.CrossEntropyLoss(), DATA)
    part = Objective(model, nn.CrossEntropyLoss(), DATA, parameters=patterns, weight_decay=0.3)
    expected = plain.loss(plain.theta) + 0.15 * part.theta.square().sum()
    assert_close(part.loss(part.theta), expected)
    block = part.without_weight_decay()
    identity = torch.eye(part.num_parameters, dtype=torch.float64)
    assert_close(hesspipe.hessian_matrix(part), hesspipe.hessian_matrix(block) + 0.3 * identity)
    assert_close(hesspipe.hessian_matrix(block), reference_hessian(block.loss, block.theta))


class Shared(nn.Module):
    """Two layers that share a weight, of which `named_parameters` tells one name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs).tanh())


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["second.*"], ["first.weight", "second.bias"]),
        (["second.weight"], ["first.weight"]),
        (["*.weight"], ["first.weight"]),
        (["first.*"], ["first.weight", "first.bias"]),
    ],
)
def test_shared_parameters_are_chosen_by_any_of_their_names(
    patterns: list[str], names: list[str]
) -> None:
    data = torch.ones(2, 3), torch.zeros(2, 3)
    assert Objective(Shared(), nn.MSELoss(), data, parameters=patterns).names == names
