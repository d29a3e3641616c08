"""Diagonal blocks of H, G or R of an objective, as matrices of a part of its parameters.

In the block of some parameters, all others are constants. Differentiation then ends where these
parameters are, and no vector is longer than they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hesspipe.curvature.diagonal_blocks import DiagonalBlock
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import CurvatureOperator
from hesspipe.curvature.vectors import VectorProduct
from hesspipe.objective.objective import Objective


@dataclass(frozen=True)
class BlockOfObjective:
    """A diagonal block of a matrix of an objective.

    Attributes
    ----------
    objective : Objective
        Its theta is that of the parameters that have a member in the block.
    matrix : Matrix
    is_member : Tensor of bool
        The entries of this theta that belong to the block.
    operator : VectorProduct
        The block.
    """

    objective: Objective
    matrix: Matrix
    is_member: Tensor
    operator: VectorProduct

    @property
    def has_whole_parameters(self) -> bool:
        """Whether the block is the matrix of `objective`."""
        return bool(self.is_member.all())


def find_block(block: DiagonalBlock) -> BlockOfObjective | None:
    """Hold constant what has no member in a block; None if it is not of an objective.

    Parameters
    ----------
    block : DiagonalBlock

    Returns
    -------
    BlockOfObjective or None
        Also None for an operator whose data are divided among processes.
    """
    whole = block.whole
    if not isinstance(whole, CurvatureOperator) or whole.is_distributed:
        return None
    objective = whole.objective
    is_member = torch.zeros(whole.shape[0], dtype=torch.bool, device=whole.device)
    is_member[block.places] = True
    parts = is_member.split([shape.numel() for shape in objective.shapes])
    names = [name for name, part in zip(objective.names, parts, strict=True) if part.any()]
    if len(names) < len(objective.names):
        whole = whole.restricted_to(names)
        is_member = torch.cat([part for part in parts if part.any()])
    operator = whole if is_member.all() else DiagonalBlock(whole, is_member)
    return BlockOfObjective(whole.objective, whole.matrix, is_member, operator)
