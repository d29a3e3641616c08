"""Figure 8: training with large batches continued with small ones, on one axis of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from hesspipe.plots import style
from hesspipe.tables.queries import join_histories, of_kind
from hesspipe.tables.store import Result

_PARTS = {1: "Part I, large batches", 2: "Part II, small batches"}


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Lay out the losses and the accuracies of both parts, one above the other.

    Parameters
    ----------
    results : sequence of Result
        The histories of Part I and of Part II.
    settings : mapping
        The figure's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    Figure
        As wide as the text; the step at which the batches change is marked in each panel.
        Without class labels there is no panel of accuracies, and without held-out data no curve
        of them.
    """
    histories = of_kind(results, "history")
    table = join_histories(histories)
    switch = int(table.loc[table["part"] == 1, "step"].max())
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 3.9))
        has_accuracy = bool(table["train_accuracy"].notna().any())
        losses, *others = figure.subplots(1 + has_accuracy, 1, sharex=True, squeeze=False)[:, 0]
        draw_halves(losses, table, "loss")
        style.loss_scale(losses, table)
        losses.set_ylabel(style.loss_label(histories[0].provenance))
        for accuracies in others:
            draw_halves(accuracies, table, "accuracy")
            accuracies.set_ylabel("accuracy")
            accuracies.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for axes in (losses, *others):
            draw_switch(axes, switch)
        name_parts(losses, table)
        last = [losses, *others][-1]
        last.legend(loc="lower right")
        last.set_xlabel("step (updates)")
        last.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def draw_halves(axes: Axes, table: pd.DataFrame, quantity: str) -> None:
    """Draw one quantity on the training and on the test set."""
    for half in ("train", "test"):
        if table[f"{half}_{quantity}"].isna().all():
            continue
        axes.plot(
            table["step"],
            table[f"{half}_{quantity}"],
            color=style.HALF_COLORS[half],
            label=style.HALF_LABELS[half],
        )


def draw_switch(axes: Axes, step: int) -> None:
    """Mark the step at which the size of the batches changes."""
    axes.axvline(step, color=style.NEUTRAL_COLOR, linestyle="--", zorder=0)


def name_parts(axes: Axes, table: pd.DataFrame) -> None:
    """Write the name of each part above its steps."""
    for part, steps in table.groupby("part")["step"]:
        middle = (steps.min() + steps.max()) / 2
        axes.annotate(
            _PARTS[int(str(part))],
            (middle, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
        )
