"""What all results with a plot have in common. It does not load matplotlib."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from hesspipe.imports import require_packages

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Plotted(ABC):
    """A result that can be drawn on the axes of matplotlib."""

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the result; what is drawn is described above.

        Parameters
        ----------
        ax : Axes of matplotlib, optional
            By default those of a new figure in the style of the paper.

        Returns
        -------
        Axes

        Raises
        ------
        TypeError
            If `ax` is something else, such as the array of axes of `plt.subplots`.
        ModuleNotFoundError
            If matplotlib is not installed.
        """
        require_packages("matplotlib", purpose="plot")
        return self._draw(ax)

    @abstractmethod
    def _draw(self, ax: Axes | None) -> Axes:
        """Draw where matplotlib is installed."""
