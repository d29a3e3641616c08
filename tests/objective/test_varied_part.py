"""The part of an objective that varies, with everything else constant."""

from __future__ import annotations

import pytest
import torch
from problems import assert_close, labels, network, normal
from torch import nn

import hesspipe
from hesspipe.objective.objective import Objective


@pytest.mark.parametrize("parameters", [["3.*"], ["1.weight", "5.bias"], ["*.bias"], None])
def test_varied_part_has_the_matrix_without_the_rows_of_frozen_parameters(
    parameters: list[str] | None,
) -> None:
    model, data = network([4, 5, 3, 3], "tanh"), (normal(9, 4), labels(9, 3))
    objective = Objective(
        model, nn.CrossEntropyLoss(), data, parameters=parameters, weight_decay=0.3
    )
    part, kept = objective.varied_part(), objective.is_varied
    assert part.num_parameters == int(kept.sum())
    assert torch.equal(part.theta, objective.theta[kept])
    assert part.names == [
        name
        for name, is_frozen in zip(objective.names, objective.is_frozen, strict=True)
        if not is_frozen
    ]
    assert float(part.loss(part.theta)) == float(objective.loss(objective.theta))
    for matrix in (hesspipe.hessian_matrix, hesspipe.ggn_matrix, hesspipe.residual_matrix):
        assert_close(matrix(part), matrix(objective)[kept][:, kept])


def test_varied_part_of_an_objective_without_frozen_parameters_is_itself() -> None:
    objective = Objective(network([4, 3]), nn.CrossEntropyLoss(), (normal(9, 4), labels(9, 3)))
    assert objective.varied_part() is objective
