"""First steps: loss and accuracy of one training against its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from hesspipe.figures.basins import draw_halves
from hesspipe.plots import style
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Lay out the loss and the accuracy, side by side.

    Parameters
    ----------
    results : sequence of Result
        The history of the training.
    settings : mapping
        The figure's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    Figure
        As wide as the text. Without class labels there is no panel of accuracies, and without
        held-out data no curve of them.
    """
    (history,) = of_kind(results, "history")
    table = history.table
    has_accuracy = bool(table["train_accuracy"].notna().any())
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.4))
        panels = figure.subplots(1, 1 + has_accuracy, squeeze=False)[0]
        for axes, quantity in zip(panels, ("loss", "accuracy"), strict=False):
            draw_halves(axes, table, quantity)
            axes.set_xlabel("step (updates)")
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        style.loss_scale(panels[0], table)
        panels[0].set_ylabel(style.loss_label(history.provenance))
        panels[0].legend(loc="upper right")
        for axes in panels[1:]:
            axes.set_ylabel("accuracy")
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure
