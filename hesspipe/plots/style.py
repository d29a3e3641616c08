"""The style of all figures and plots as plain rcParams, and saving with reproducible bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style as mpl_style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure

from hesspipe.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

# Text width and font sizes of the ICLR 2018 style file, in inches and points.
TEXT_WIDTH = 5.5
_BODY_SIZE = 10.0
_CAPTION_SIZE = 9.0

# Paul Tol, "Colour schemes", SRON technical note (2021): the "bright" set, safe for the
# color-blind. One color per matrix, the same in every figure.
MATRIX_COLORS: dict[str, str] = {
    "hessian": "#4477AA",
    "ggn": "#228833",
    "residual": "#EE6677",
}
# Of any other operator, on a light and on a dark background.
OTHER_COLOR = "#555555"
_OTHER_ON_DARK = "#BBBBBB"
# One color and one marker per network, in the order of the figure's entry in config.yaml.
NETWORK_COLORS = ["#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377"]
NETWORK_MARKERS = ["o", "s", "^", "D", "v", "P"]
# One color for the training set and one for the test set.
HALF_COLORS = {"train": "#4477AA", "test": "#EE6677"}
HALF_LABELS = {"train": "training set", "test": "test set"}
MATRIX_MARKERS: dict[str, str] = {"hessian": "o", "ggn": "s", "residual": "^"}
SIGN_COLORS = {"positive": "#4477AA", "negative": "#EE6677"}
OUTLIER_COLOR = "#AA3377"
NEUTRAL_COLOR = "#BBBBBB"
MATRIX_LABELS: dict[str, str] = {
    "hessian": "Hessian",
    "ggn": "Gauss-Newton",
    "residual": "residual",
}

RC_PARAMS: dict[str, Any] = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": _CAPTION_SIZE,
    "axes.labelsize": _CAPTION_SIZE,
    "axes.titlesize": _CAPTION_SIZE,
    "legend.fontsize": _CAPTION_SIZE - 1,
    "xtick.labelsize": _CAPTION_SIZE - 1,
    "ytick.labelsize": _CAPTION_SIZE - 1,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 0.9,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
}
# These apply when a figure is saved, not when it is drawn; Type 42 fonts stay editable text.
_SAVE_PARAMS: dict[str, Any] = {"pdf.fonttype": 42, "savefig.bbox": None}
_PNG_DPI = 200
_OPAQUE = 0.5


def context() -> AbstractContextManager[None]:
    """Apply the style inside a with block, without changing global settings."""
    return mpl_style.context(["default", RC_PARAMS])


def loss_label(provenance: Mapping[str, Any]) -> str:
    """Name a loss and its unit; that of a user's network is not known."""
    is_user = provenance.get("model", {}).get("kind") == "user"
    return "loss" if is_user else "mean cross-entropy (nats)"


def loss_scale(axes: Axes, table: pd.DataFrame) -> None:
    """Scale the axis of losses: logarithmic, or linear if one is not positive."""
    losses = table[["train_loss", "test_loss"]].to_numpy(dtype=float)
    if (losses[~np.isnan(losses)] > 0).all():
        axes.set_yscale("log", nonpositive="clip")


def is_dark(axes: Axes) -> bool:
    """Tell whether the background of axes is dark."""
    backgrounds = [to_rgba(axes.get_facecolor()), to_rgba(axes.figure.get_facecolor())]
    seen = next((color for color in backgrounds if color[3] > _OPAQUE), (1.0,))
    return max(seen[:3]) < _OPAQUE


def ink(axes: Axes) -> str:
    """Color of marks on the background of axes."""
    return "white" if is_dark(axes) else "black"


def matrix_color(matrix: str, axes: Axes) -> str:
    """Color of a matrix, or of any other operator, on the background of axes."""
    return MATRIX_COLORS.get(matrix, _OTHER_ON_DARK if is_dark(axes) else OTHER_COLOR)


def matrix_label(matrix: str) -> str:
    """Name of a matrix in titles and legends."""
    return MATRIX_LABELS.get(matrix, matrix)


def interval_label(confidence: float) -> str:
    """Name of intervals that hold what they bound, but for a small probability."""
    return f"{100 * confidence:g} % confidence"


def color_norm(low: float, high: float, *, is_log: bool) -> Normalize:
    """Map numbers from low to high to colors."""
    return LogNorm(low, high) if is_log else Normalize(low, high)


def network_line(number: int) -> dict[str, Any]:
    """Color and marker of the network at this position in the figure's entry."""
    return {
        "color": NETWORK_COLORS[number],
        "marker": NETWORK_MARKERS[number],
        "markersize": 2.5,
    }


def save(figure: Figure, path_to_pdf: str | Path, path_to_png: str | Path) -> None:
    """Write a figure as PDF and PNG; equal figures give equal bytes."""
    with mpl_style.context(["default", RC_PARAMS, _SAVE_PARAMS]):
        pdf = _drawn(figure, format="pdf", metadata={"CreationDate": None})
        png = _drawn(figure, format="png", metadata={"Software": None}, dpi=_PNG_DPI)
    write_bytes(pdf, path_to_pdf)
    write_bytes(png, path_to_png)


def _drawn(figure: Figure, **options: Any) -> bytes:
    """Draw into memory: on a full disk, matplotlib ends in errors of its own."""
    content = io.BytesIO()
    figure.savefig(content, **options)
    return content.getvalue()
