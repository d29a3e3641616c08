"""What a checkpoint keeps of a monitor: the vectors of the last record, and its counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hesspipe.monitor.budget import Budget
from hesspipe.monitor.measurement import Measurement
from hesspipe.objective.objective import Objective

_KEYS = {"carried", "num_since_verified", "taken", "critical_step", "seconds", "last", "rows"}


def state_of(measurement: Measurement, budget: Budget) -> dict[str, Any]:
    """Return what the next record starts from, as tensors and numbers."""
    return {
        "carried": {name: vectors.clone() for name, vectors in measurement.carried.items()},
        "num_since_verified": measurement.num_since_verified,
        "taken": dict(measurement.taken),
        "critical_step": measurement.critical_step,
        "seconds": budget.state(),
    }


def restore(
    state: Mapping[str, Any], objective: Objective, measurement: Measurement, budget: Budget
) -> None:
    """Take over what `state_of` returned.

    Raises
    ------
    ValueError
        If it is something else, or of another number of parameters.
    """
    measurement.carried = _carried(state, objective)
    measurement.num_since_verified = state["num_since_verified"]
    measurement.taken = dict(state["taken"])
    measurement.critical_step = state["critical_step"]
    budget.restore(state["seconds"])


def _carried(state: Mapping[str, Any], objective: Objective) -> dict[str, Tensor]:
    """Copy the vectors of a state to the device and dtype of an objective."""
    if not isinstance(state, Mapping) or not set(state) >= _KEYS:
        raise ValueError(
            "state must be what Monitor.state_dict() of this version returned, got something else; "
            "without it, pass path and the number of updates to step"
        )
    found = {}
    for name, vectors in state["carried"].items():
        if vectors.shape[1] != objective.num_parameters:
            raise ValueError(
                f"state must be of a monitor of {objective.num_parameters:,} parameters, got one "
                f"of {vectors.shape[1]:,}"
            )
        found[name] = vectors.to(objective.device, objective.dtype, copy=True)
    return found
