"""Curves, distributions, counts, moments, estimates, outliers and losses as tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hesspipe.linalg.counts import Count
from hesspipe.linalg.intervals import Curve, Distribution, Moment
from hesspipe.linalg.trace import Estimate
from hesspipe.outliers import OutlierCount
from hesspipe.saving.forms import Form, tensor

if TYPE_CHECKING:
    import pandas as pd

    from hesspipe.tables.store import Result

# Labels of a result that no experiment made, in tables that have them as columns.
_UNNAMED = {"experiment": "unnamed", "seed": 0, "step": 0, "group": "network"}
_CURVE = ("value", "density", "standard_error", "low", "high")


def _curve_table(found: Curve) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    if found.dim is None:
        raise ValueError("a curve must have dim, the number of eigenvalues, to be saved, got None")
    columns = (found.grid, found.estimate, found.standard_error, found.low, found.high)
    labels = {key: found.provenance.get(key, value) for key, value in _UNNAMED.items()}
    labels |= {"matrix": str(found.matrix), "num_parameters": found.dim}
    table = pd.DataFrame(
        {name: column.numpy() for name, column in zip(_CURVE, columns, strict=True)}
    )
    peak = 1 / (found.dim * found.width * math.sqrt(2 * math.pi))
    table = table.assign(**labels, one_eigenvalue=peak)
    names = ("experiment", "seed", "step", "matrix", "group", "num_parameters", *_CURVE,
             "one_eigenvalue")  # fmt: skip
    own = {"width": found.width, "confidence": found.confidence, "matrix": str(found.matrix)}
    own |= {"num_parameters": found.dim, "is_one": True}
    return table[list(names)], {**found.provenance, **own}


def _curve(result: Result) -> Curve | Result:
    """The pipeline has several curves in a table, which stays as it is."""
    about = result.provenance
    if "is_one" not in about:
        return result
    grid, estimate, error, low, high = (tensor(result.table[name]) for name in _CURVE)
    return Curve(
        low, high, estimate, error, about["confidence"], grid, about["width"], about["matrix"],
        about["num_parameters"], about,
    )  # fmt: skip


def _distribution_table(found: Distribution) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    columns = {"point": found.points, "low": found.low, "high": found.high}
    columns["estimate"] = found.estimate
    table = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    return table, {"confidence": found.confidence}


def _distribution(result: Result) -> Distribution:
    names = ("low", "high", "estimate", "point")
    low, high, estimate, points = (tensor(result.table[name]) for name in names)
    return Distribution(low, high, estimate, result.provenance["confidence"], points)


def _number_table(found: Count | Moment | Estimate) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    value = found.value if isinstance(found, Estimate) else found.estimate
    row = {
        "value": float(value),
        **{
            name: float(getattr(found, name, math.nan))
            for name in ("low", "high", "standard_error")
        },
    }
    about = {"quantity": type(found).__name__, "confidence": getattr(found, "confidence", None)}
    return pd.DataFrame([row]), about


def _number(result: Result) -> Count | Moment | Estimate:
    about = result.provenance
    value, low, high, error = (
        float(result.table[name].iloc[0]) for name in ("value", "low", "high", "standard_error")
    )
    if about["quantity"] == "Count":
        return Count(int(low), int(high), value, about["confidence"])
    if about["quantity"] == "Moment":
        return Moment(low, high, value, error, about["confidence"])
    return Estimate(value, error)


def _outliers_table(found: OutlierCount) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    step = found.provenance.get("step", _UNNAMED["step"])
    row = {"step": step, "matrix": found.matrix, "rule": found.rule}
    row |= {"num_outliers": found.num_outliers, "cutoff": found.cutoff}
    return pd.DataFrame([row]), {**found.provenance, "largest": found.largest.tolist()}


def _outliers(result: Result) -> OutlierCount | Result:
    """The pipeline's counts are of several spectra, without their eigenvalues."""
    if "largest" not in result.provenance:
        return result
    row = {str(key): value for key, value in result.table.iloc[0].items()}
    largest = np.array(result.provenance["largest"], dtype=np.float64)
    return OutlierCount(
        int(row["num_outliers"]), float(row["cutoff"]), row["rule"], largest, row["matrix"],
        result.provenance,
    )  # fmt: skip


CURVE = Form(Curve, _curve_table, _curve)
DISTRIBUTION = Form(Distribution, _distribution_table, _distribution)
NUMBER = Form((Count, Moment, Estimate), _number_table, _number)
OUTLIERS = Form(OutlierCount, _outliers_table, _outliers)
