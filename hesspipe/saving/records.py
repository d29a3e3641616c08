"""The table of a monitor on axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hesspipe.tables.store import Result


def plot_records(result: Result, ax: Axes | None) -> Axes:
    """Draw the eigenvalues of a monitor against the steps, and the limit of the optimizer.

    Parameters
    ----------
    result : Result
        Of kind "monitor". Records that failed are left out.
    ax : Axes of matplotlib, or None
    """
    from hesspipe.plots.training import Line, plot_training

    table = result.table[result.table["eigenvalue"].notna()]
    lines: dict[tuple[str, int], Line] = {}
    for end, part in table.groupby("end"):
        ranks = sorted(part["rank"].unique(), reverse=end == "largest")
        for order, rank in enumerate(ranks, 1):
            line = part[part["rank"] == rank].sort_values("step")
            columns = ("step", "eigenvalue", "residual_norm")
            arrays = [line[name].to_numpy("float64") for name in columns]
            lines[str(end), order] = (*arrays, line["status"].to_numpy(str))
    steps = table[table["stability_limit"].notna()].drop_duplicates("step").sort_values("step")
    limits = steps["step"].to_numpy("float64"), steps["stability_limit"].to_numpy("float64")
    return plot_training(ax, lines, limits)
