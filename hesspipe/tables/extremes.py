"""The extreme eigenvalues of a run, whether its whole spectrum is known or only its ends."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

_KEYS = ["experiment", "seed", "step", "matrix", "num_parameters"]


def extreme_eigenvalues(
    tables: Sequence[pd.DataFrame], num_largest: int, num_smallest: int
) -> pd.DataFrame:
    """Put the ends of several spectra into one table.

    Parameters
    ----------
    tables : sequence of DataFrame
        Spectrum tables, or eigenpair tables, with their provenance in `attrs`.
    num_largest, num_smallest : int
        How many eigenvalues of each end.

    Returns
    -------
    DataFrame
        experiment, seed, step, matrix, num_parameters, end ("largest" or "smallest"),
        order (1 = most extreme), eigenvalue, uncertainty (up to which it counts as zero: the
        spectrum's tolerance, or the pair's residual norm); by increasing order within an end.

    Raises
    ------
    ValueError
        If an eigenpair table holds fewer than that many.

    Examples
    --------
    >>> table = pd.DataFrame({"rank": [0, 1, 2], "eigenvalue": [-1.0, 0.0, 5.0]})
    >>> about = {"experiment": "mine", "seed": 0, "step": 0, "matrix": "hessian"}
    >>> table.attrs = about | {"num_parameters": 3, "tolerance": 1e-15}
    >>> extreme_eigenvalues([table], 1, 1)[["end", "order", "eigenvalue"]].values.tolist()
    [['largest', 1, 5.0], ['smallest', 1, -1.0]]
    """
    numbers = {"largest": num_largest, "smallest": num_smallest}
    return pd.concat(
        [
            _end(table, end, number)
            for table in tables
            for end, number in numbers.items()
            if number > 0
        ],
        ignore_index=True,
    )


def _end(table: pd.DataFrame, end: str, number: int) -> pd.DataFrame:
    """One end of one spectrum, the most extreme eigenvalue first."""
    is_whole = "end" not in table.columns
    known = table if is_whole else table[table["end"] == end]
    if not is_whole and len(known) < number:
        raise ValueError(
            f"the {end} eigenvalues of {table.attrs['experiment']} at step {table.attrs['step']} "
            f"must be at least {number}, got {len(known)}; ask for more in its eigenpairs"
        )
    extreme = known.sort_values("eigenvalue", ascending=end == "smallest", kind="stable").head(
        number
    )
    labels = {key: table.attrs[key] for key in _KEYS}
    return pd.DataFrame(
        {
            **labels,
            "end": end,
            "order": range(1, len(extreme) + 1),
            "eigenvalue": extreme["eigenvalue"].to_numpy(),
            "uncertainty": table.attrs["tolerance"]
            if is_whole
            else extreme["residual_norm"].to_numpy(),
        }
    )
