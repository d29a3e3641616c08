"""What multiplies by a matrix of an objective, by the kind of the objective."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import OPERATORS, CurvatureOperator
from hesspipe.curvature.sharded_products import ShardedProducts
from hesspipe.objective.objective import Objective
from hesspipe.sharded.objective import ShardedObjective


def multiplied_by(operator: Any, matrix: Matrix | str | None) -> tuple[Any, Matrix | str | None]:
    """Make the operator of a matrix of an objective, and leave out its name."""
    if not isinstance(operator, Objective):
        return operator, matrix
    return _operator_of(operator, Matrix(matrix or Matrix.HESSIAN)), None


@singledispatch
def _operator_of(objective: Objective, matrix: Matrix) -> CurvatureOperator | ShardedProducts:
    """Products with a matrix, by the kind of the objective."""
    return OPERATORS[matrix](objective)


@_operator_of.register
def _(objective: ShardedObjective, matrix: Matrix) -> ShardedProducts:
    return ShardedProducts(objective, matrix)
