"""How many eigenvalues are negative, zero and positive, and how large: behind Figures 3 to 6."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def inertia(spectra: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tabulate the signs of the eigenvalues of several spectra.

    A network with one hidden layer of h ReLU units has a residual that couples a unit's incoming
    weights only with its C outgoing ones, through a C x (d + 1) matrix of rank at most C - 1 for
    softmax cross-entropy. So the residual, and with it the Hessian, has at most h (C - 1) negative
    eigenvalues, and their share of P = h (d + 1 + C) + C does not grow with h.

    Parameters
    ----------
    spectra : sequence of DataFrame
        Spectrum tables with their provenance in `attrs`.

    Returns
    -------
    DataFrame
        experiment, seed, num_parameters, matrix, method, num_negative, num_zero, num_positive,
        negative_bound (<NA> where this bound does not apply), negative_percent, smallest, largest;
        in the order of the spectra.
    """
    return pd.DataFrame([_row(spectrum) for spectrum in spectra]).astype(
        {"negative_bound": "Int64"}
    )


def _row(spectrum: pd.DataFrame) -> dict[str, object]:
    about = spectrum.attrs
    counts = {name: about[name] for name in ("num_negative", "num_zero", "num_positive")}
    return {
        **{name: about[name] for name in ("experiment", "seed", "num_parameters", "matrix")},
        "method": about["method"],
        **counts,
        "negative_bound": _negative_bound(about["model"], about["matrix"], about["num_classes"]),
        "negative_percent": 100 * counts["num_negative"] / about["num_parameters"],
        "smallest": spectrum["eigenvalue"].min(),
        "largest": spectrum["eigenvalue"].max(),
    }


def _negative_bound(model: dict[str, object], matrix: str, num_classes: int) -> int | None:
    if matrix == "ggn":
        return 0
    widths = model.get("hidden_widths")
    if model["kind"] != "mlp" or model["activation"] != "relu":
        return None
    if not isinstance(widths, list) or len(widths) != 1:
        return None
    return int(widths[0]) * (num_classes - 1)
