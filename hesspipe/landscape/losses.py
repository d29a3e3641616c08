"""Losses on a line or a plane: results that can be drawn, and kept by `hesspipe.save`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hesspipe.landscape.barriers import Barrier, find_barrier
from hesspipe.plots.plotted import Plotted
from hesspipe.summaries import ends, summary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class _Losses(Plotted):
    """A table of losses, and what decided its numbers."""

    table: pd.DataFrame
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, column: str) -> pd.Series:
        return self.table[column]


@dataclass(frozen=True, eq=False)
class LineLosses(_Losses):
    """Losses and accuracies on a straight line between two points.

    `plot` draws the losses of the training set, and of the test set if there is one.

    Attributes
    ----------
    table : DataFrame
        coefficient, train_loss, train_accuracy, test_loss, test_accuracy; see
        `hesspipe.landscape.paths.evaluate_line`. `line["train_loss"]` is a column of it.
    provenance : mapping
        What decided the numbers, as far as it is known, for `hesspipe.save`.
    """

    def __repr__(self) -> str:
        return summary(
            "LineLosses",
            coefficients=ends(self["coefficient"].tolist()),
            train_loss=ends(self["train_loss"].tolist()),
            test_loss=None if self["test_loss"].isna().all() else ends(self["test_loss"].tolist()),
        )

    def barrier(self, half: Literal["train", "test"] = "train") -> Barrier:
        """Find the barrier of the loss on one set; see `find_barrier`."""
        return find_barrier(self["coefficient"].tolist(), self[f"{half}_loss"].tolist())

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.landscape import plot_line

        losses = {half: self[f"{half}_loss"] for half in ("train", "test")}
        present = {
            half: part.to_numpy(dtype="float64")
            for half, part in losses.items()
            if part.notna().any()
        }
        return plot_line(ax, self["coefficient"].to_numpy(), present)


@dataclass(frozen=True, eq=False)
class PlaneLosses(_Losses):
    """Training losses at points of a plane.

    `plot` draws them as filled contours.

    Attributes
    ----------
    table : DataFrame
        first, second (the coordinates) and train_loss; see
        `hesspipe.landscape.paths.evaluate_plane`. `losses["train_loss"]` is a column of it.
    provenance : mapping
        What decided the numbers, as far as it is known, for `hesspipe.save`.
    """

    @property
    def columns(self) -> pd.Index:
        """Names of the columns."""
        return self.table.columns

    def __repr__(self) -> str:
        losses = self["train_loss"]
        return summary(
            "PlaneLosses",
            num_points=len(losses),
            smallest=float(losses.min()) if len(losses) else None,
            largest=float(losses.max()) if len(losses) else None,
        )

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.landscape import plot_plane

        columns = (self[name].to_numpy() for name in ("first", "second", "train_loss"))
        return plot_plane(ax, *columns)
