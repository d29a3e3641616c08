"""Figure 9: loss and accuracy on the straight line through two solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hesspipe.plots import style
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Lay out the loss and the accuracy on a line, side by side.

    Parameters
    ----------
    results : sequence of Result
        One line; coefficients 0 and 1 are the solutions.
    settings : mapping
        The figure's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    Figure
        As wide as the text; both solutions are marked in each panel. Without class labels there
        is no panel of accuracies, and without held-out data no curve of them.
    """
    (line,) = of_kind(results, "line")
    table = line.table
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.4))
        has_accuracy = bool(table["train_accuracy"].notna().any())
        losses, *others = figure.subplots(1, 1 + has_accuracy, squeeze=False)[0]
        draw_line(losses, table, "loss")
        style.loss_scale(losses, table)
        losses.set_ylabel(style.loss_label(line.provenance))
        for accuracies in others:
            draw_line(accuracies, table, "accuracy")
            accuracies.set_ylabel("accuracy")
            accuracies.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for axes in (losses, *others):
            axes.set_xlabel("interpolation coefficient")
        losses.legend()
    return figure


def draw_line(axes: Axes, table: pd.DataFrame, quantity: str) -> None:
    """Draw one quantity on the training and on the test set, and mark both solutions."""
    for half, marker in (("train", "o"), ("test", "s")):
        if table[f"{half}_{quantity}"].isna().all():
            continue
        axes.plot(
            table["coefficient"],
            table[f"{half}_{quantity}"],
            marker=marker,
            markersize=2,
            color=style.HALF_COLORS[half],
            label=style.HALF_LABELS[half],
        )
    for place, name in ((0.0, "LB"), (1.0, "SB")):
        axes.axvline(place, color=style.NEUTRAL_COLOR, linestyle="--", zorder=0)
        axes.annotate(
            name, (place, 1.02), xycoords=("data", "axes fraction"), ha="center", va="bottom"
        )
