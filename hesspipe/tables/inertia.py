"""Numbers of negative, zero and positive eigenvalues, and the extreme ones: Figures 3 to 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hesspipe.curvature.matrix import Matrix
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate the signs of the eigenvalues of several spectra.

    A network with one hidden layer of h ReLU units has a residual that couples a unit's incoming
    weights only with its C outgoing ones, through a C x (d + 1) matrix of rank at most C - 1 for
    softmax cross-entropy. So the residual, and with it the Hessian, has at most h (C - 1) negative
    eigenvalues, and their share of P = h (d + 1 + C) + C does not grow with h.

    Parameters
    ----------
    results : sequence of Result
        Spectra.
    settings : mapping
        The table's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    DataFrame
        experiment, seed, num_parameters, matrix, method, num_negative, num_zero, num_positive,
        negative_bound (<NA> where this bound does not apply), negative_percent, smallest, largest;
        in the order of the spectra.
    """
    rows = [_row(spectrum) for spectrum in of_kind(results, "spectrum")]
    return pd.DataFrame(rows).astype({"negative_bound": "Int64"})


def _row(spectrum: Result) -> dict[str, object]:
    provenance, eigenvalues = spectrum.provenance, spectrum.table["eigenvalue"]
    counts = {name: provenance[name] for name in ("num_negative", "num_zero", "num_positive")}
    return {
        **{name: provenance[name] for name in ("experiment", "seed", "num_parameters", "matrix")},
        "method": provenance["method"],
        **counts,
        "negative_bound": _negative_bound(
            provenance["model"], Matrix(provenance["matrix"]), provenance["num_classes"]
        ),
        "negative_percent": 100 * counts["num_negative"] / provenance["num_parameters"],
        "smallest": eigenvalues.min(),
        "largest": eigenvalues.max(),
    }


def _negative_bound(model: dict[str, object], matrix: Matrix, num_classes: int) -> int | None:
    if matrix is Matrix.GGN:
        return 0
    widths = model.get("hidden_widths")
    if model["kind"] != "mlp" or model["activation"] != "relu":
        return None
    if not isinstance(widths, list) or len(widths) != 1:
        return None
    return int(widths[0]) * (num_classes - 1)
