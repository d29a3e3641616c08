"""The loss on some of the samples of an objective, as an objective of its own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from hesspipe.linalg.arguments import require_integer
from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import part_of, take
from hesspipe.objective.determinism import preserved_random_state
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.streaming import StreamedBatches

if TYPE_CHECKING:
    from hesspipe.objective.objective import Objective


@differentiating()
def first_samples(objective: Objective, number: int | None) -> Objective:
    """Make the objective of the first samples, with the checks of a new one.

    Parameters
    ----------
    objective : Objective
        Its samples must be independent, and held in memory.
    number : int, optional
        At least 1; by default all of them.

    Returns
    -------
    Objective
        The same if it has no more samples.

    Raises
    ------
    ValueError
        If its batches cannot be divided, or there are fewer samples.
    """
    if number is None:
        return objective
    if objective.ranks is not None:
        raise ValueError(
            f"samples must be None for an objective over several processes, got {number:,}; build "
            "it from fewer samples in each"
        )
    number = require_integer("samples", number, 1)
    if number > objective.num_data:
        raise ValueError(f"samples must be at most N = {objective.num_data:,}, got {number:,}")
    if number == objective.num_data:
        return objective
    _require_divisible(objective)
    chosen: list[Batch] = []
    left = number
    for batch in objective.batches:
        count = min(left, batch.num_samples)
        index = torch.arange(count, device="cpu")
        inputs = part_of(batch.inputs, index)
        targets = take(batch.targets, index, batch.num_samples)
        chosen.append(Batch(inputs, targets, share=1.0, number=batch.number))
        left -= count
        if left == 0:
            break
    part = copy.copy(objective)
    with preserved_random_state(objective.device):
        part._finish(objective._flat, objective._reduced, chosen)
    return part


def _require_divisible(objective: Objective) -> None:
    reason = None
    if objective.ranks is not None:
        reason = "data over several processes"
    elif not objective.is_separable:
        reason = objective.coupling or "outputs that are not one row per sample"
    elif isinstance(objective.batches, StreamedBatches):
        reason = "streamed data"
    if reason is not None:
        raise ValueError(
            f"samples must be None for an objective with {reason}, got a number; build an "
            "Objective on the data that you choose, and pass that one"
        )
