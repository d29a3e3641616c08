"""Losses on lines and planes, and barriers, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hesspipe.landscape.barriers import Barrier
from hesspipe.landscape.losses import LineLosses, PlaneLosses
from hesspipe.saving.forms import Form

if TYPE_CHECKING:
    import pandas as pd

    from hesspipe.tables.store import Result


def _line_table(found: LineLosses) -> tuple[pd.DataFrame, dict[str, Any]]:
    accuracies = {"train_accuracy": "float64", "test_loss": "float64", "test_accuracy": "float64"}
    ends: dict[str, Any] = {"first": {}, "second": {}}  # not checkpoints of the pipeline
    return found.table.astype(accuracies), {**ends, **found.provenance}


def _plane_table(found: PlaneLosses) -> tuple[pd.DataFrame, dict[str, Any]]:
    return found.table, dict(found.provenance)


def _barrier_table(found: Barrier) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    table = pd.DataFrame({"coefficient": found.coefficients, "loss": found.losses})
    return table, {"height": found.height, "place": found.place, "rise": found.rise}


def _barrier(result: Result) -> Barrier:
    about, table = result.provenance, result.table
    columns = (table[name].to_numpy(dtype="float64", copy=True) for name in ("coefficient", "loss"))
    return Barrier(about["height"], about["place"], about["rise"], *columns)


LINE = Form(
    LineLosses, _line_table, lambda result: LineLosses(result.table, dict(result.provenance))
)
PLANE = Form(
    PlaneLosses, _plane_table, lambda result: PlaneLosses(result.table, dict(result.provenance))
)
BARRIER = Form(Barrier, _barrier_table, _barrier)
