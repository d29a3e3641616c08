"""Objectives whose data are distributed over processes, through `torch.distributed`.

Each process builds an `Objective` from its part of the data, and an operator from it with
`process_group=...`. The loss over all the data is a mean with one denominator (samples, class
weights, valid labels): the weight of a part is its denominator divided by the sum over processes,
not one over the number of processes. A product is then a sum over processes, one all-reduce, and
all processes continue with the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from hesspipe.objective.objective import Objective

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def part_of_whole(objective: Objective, process_group: ProcessGroup) -> Objective:
    """Weight the objective of a process as its part of the loss over all the data.

    Parameters
    ----------
    objective : Objective
        With the data of this process; model, parameters and weight decay are the same in all.
    process_group : ProcessGroup
        Initialized by the caller.

    Returns
    -------
    Objective
        With `num_data` over all processes, and shares that add up to 1 over them. Its loss and
        dense matrices are those of the part only: it is meant for operators, which add the parts.

    Raises
    ------
    ValueError
        In every process, if parameters or weight decay differ between processes.
    """
    _require_same(objective, process_group)
    denominator = objective.total_denominator()
    sums = torch.tensor(
        [denominator or 0.0, objective.num_data], dtype=torch.float64, device=objective.device
    )
    dist.all_reduce(sums, group=process_group)
    factor = 1.0 if denominator is None else denominator / float(sums[0])
    return objective.as_part(factor, int(sums[1]))


def _require_same(objective: Objective, process_group: ProcessGroup) -> None:
    """Compare P, then theta and the weight decay, with those of the group's first process."""
    size = torch.tensor([objective.num_parameters], device=objective.device)
    if not _is_same(size, process_group):
        raise ValueError(
            f"objective must have the same parameters in every process, got {size.item()} of them "
            "in this one and another number in another one"
        )
    decay = objective.theta.new_tensor([objective.weight_decay])
    if not _is_same(torch.cat([objective.theta, decay]), process_group):
        raise ValueError(
            "objective must have the same parameters and weight decay in every process, got "
            "different ones; load the same state dict in all of them, or broadcast it"
        )


def _is_same(values: Tensor, process_group: ProcessGroup) -> bool:
    """Return whether all processes hold the same values; all get the same answer."""
    first = values.clone()
    dist.broadcast(first, src=dist.get_global_rank(process_group, 0), group=process_group)
    differs = torch.tensor([float(not torch.equal(first, values))], device=values.device)
    dist.all_reduce(differs, group=process_group)
    return float(differs) == 0.0
