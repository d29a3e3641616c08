"""One objective whose data lie in several processes, through `torch.distributed`.

Every process builds an `Objective` of its own part of the data, and an operator of it with
`process_group=...`. The loss over all the data is a mean with one denominator (samples, class
weights, valid labels): each process's part counts by its own denominator divided by the sum over
processes, not by one over their number. A product is then a sum over processes, one all-reduce,
and every process goes on with the same numbers.
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
    """Weigh a process's objective as its part of the loss over the data of all.

    Parameters
    ----------
    objective : Objective
        Of this process's data; the same model, parameters and weight decay in all.
    process_group : ProcessGroup
        Initialized by the caller.

    Returns
    -------
    Objective
        With `num_data` over all processes, and shares that add up to 1 over them. Its own loss and
        dense matrices are its part alone: it is for operators, which add the parts.

    Raises
    ------
    ValueError
        In every process, if one has other parameters or another weight decay than the first.
    """
    _require_same(objective, process_group)
    own = objective.total_denominator()
    sums = torch.tensor(
        [own or 0.0, objective.num_data], dtype=torch.float64, device=objective.device
    )
    dist.all_reduce(sums, group=process_group)
    factor = 1.0 if own is None else own / float(sums[0])
    return objective.as_part(factor, int(sums[1]))


def _require_same(objective: Objective, process_group: ProcessGroup) -> None:
    """Compare P, then theta and the weight decay, with those of the group's first process."""
    size = torch.tensor([objective.num_parameters], device=objective.device)
    if not _is_same(size, process_group):
        raise ValueError(
            f"objective must have the same parameters in every process, got {size.item()} of them "
            "in this one and another number elsewhere"
        )
    decay = objective.theta.new_tensor([objective.weight_decay])
    if not _is_same(torch.cat([objective.theta, decay]), process_group):
        raise ValueError(
            "objective must have the same parameters and weight decay in every process, got "
            "others in one; load one state dict, or broadcast it, in all of them"
        )


def _is_same(values: Tensor, process_group: ProcessGroup) -> bool:
    """Whether all processes hold the same values; the same answer in all."""
    first = values.clone()
    dist.broadcast(first, src=dist.get_global_rank(process_group, 0), group=process_group)
    differs = torch.tensor([float(not torch.equal(first, values))], device=values.device)
    dist.all_reduce(differs, group=process_group)
    return float(differs) == 0.0
