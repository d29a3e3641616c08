"""What a monitor measured at one step, as rows of its table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hesspipe.linalg.tracking import Tracking
from hesspipe.monitor.step_sizes import StepSizes

# Of an eigenvalue: its error is at most the tolerance, but for a small probability; or is so by
# estimate, if no other eigenvector has risen above it; or is not.
CERTIFIED, ESTIMATED, OPEN = "certified", "estimated", "open"


@dataclass
class Record:
    """What was measured at one step."""

    loss: float
    ends: Tracking
    tolerance: float
    sizes: StepSizes
    num_products: int = 0
    preconditioned: float | None = None
    preconditioned_residual: float | None = None
    preconditioned_bound: float | None = None
    critical: float | None = None
    trace: float | None = None
    trace_error: float | None = None
    time_share: float | None = None

    @staticmethod
    def nothing() -> dict[str, Any]:
        """Columns of a record that failed."""
        names = (
            "loss", "missed_probability", "step_size", "preconditioned_sharpness",
            "preconditioned_residual", "preconditioned_bound", "stability_limit",
            "critical_sharpness", "trace", "trace_error", "time_share",
        )  # fmt: skip
        return {**dict.fromkeys(names), "num_products": 0}

    def status(self, place: int) -> str:
        """Tell what is known of an eigenvalue: one of the three above."""
        if self.ends.is_converged[place]:
            return CERTIFIED
        size = abs(float(self.ends.pairs.eigenvalues[place]))
        is_small = float(self.ends.error_estimates[place]) <= self.tolerance * size
        return ESTIMATED if is_small else OPEN

    def columns(self) -> dict[str, Any]:
        """Columns that all rows of the record share."""
        return {
            "loss": self.loss,
            "missed_probability": self.ends.missed_probability,
            "step_size": self.sizes.step_size,
            "preconditioned_sharpness": self.preconditioned,
            "preconditioned_residual": self.preconditioned_residual,
            "preconditioned_bound": self.preconditioned_bound,
            "stability_limit": self.sizes.stability_limit,
            "critical_sharpness": self.critical,
            "trace": self.trace,
            "trace_error": self.trace_error,
            "num_products": self.num_products,
            "time_share": self.time_share,
        }


def finite(bound: Tensor) -> float | None:
    """Return a bound, or None if it is infinite."""
    return float(bound) if math.isfinite(bound) else None


def rows_of(
    number: int, found: Record | None, ends: tuple[int, int], size: int
) -> list[dict[str, Any]]:
    """Make the rows of a record, without numbers where it failed.

    Parameters
    ----------
    number : int
        The step.
    found : Record or None
    ends : tuple
        Numbers of smallest and largest eigenvalues.
    size : int
        P.
    """
    places = [("smallest", rank) for rank in range(ends[0])]
    places += [("largest", rank) for rank in range(size - ends[1], size)]
    common = {"step": number, **(Record.nothing() if found is None else found.columns())}
    rows = []
    for place, (end, rank) in enumerate(places):
        row: dict[str, Any] = {"end": end, "rank": rank, "is_converged": False}
        row |= {"eigenvalue": None, "residual_norm": None, "error_estimate": None}
        row |= {"error_bound": None, "is_verified": False, "status": None}
        if found is not None and len(found.ends.pairs.eigenvalues) == len(places):
            pairs = found.ends.pairs
            row["eigenvalue"] = float(pairs.eigenvalues[place])
            row["residual_norm"] = float(pairs.residual_norms[place])
            row["error_estimate"] = float(found.ends.error_estimates[place])
            row["error_bound"] = finite(found.ends.error_bounds[place])
            row["is_verified"] = row["error_bound"] is not None
            row["is_converged"] = bool(found.ends.is_converged[place])
            row["status"] = found.status(place)
        rows.append(common | row)
    return rows
