"""Gallery: a whole spectrum in order, with one color for each sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from hesspipe.plots import style
from hesspipe.plots.spectra import draw_by_sign
from hesspipe.tables.queries import join_spectra, of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the magnitude of every eigenvalue at its rank, one panel for each step.

    A logarithmic axis shows bulk and outliers together, over all their decades. Eigenvalues that
    count as zero are left out, so that there is a gap at their ranks.

    Parameters
    ----------
    results : sequence of Result
        Spectra of one matrix at several steps.
    settings : mapping
        The figure's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    Figure
        As wide as the text.
    """
    table = join_spectra(of_kind(results, "spectrum"))
    steps = list(dict.fromkeys(table["step"]))
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.2 * len(steps) + 0.4))
        rows = figure.subplots(len(steps), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for axes, step in zip(rows, steps, strict=True):
            spectrum = table[table["step"] == step]
            negative, zero = (int(spectrum[key].iloc[0]) for key in ("num_negative", "num_zero"))
            magnitudes = spectrum["eigenvalue"].abs().to_numpy()
            draw_by_sign(axes, spectrum["rank"].to_numpy(), magnitudes, negative, zero)
            signs = f"{negative:,} negative, {zero:,} zero"
            axes.set_title(f"step {step:,}: {len(spectrum):,} eigenvalues, {signs}", loc="left")
            axes.set_ylabel(r"magnitude $|\lambda|$ (units of the loss)")
        rows[0].set_yscale("log")
        rows[0].legend()
        rows[-1].set_xlabel("rank of the eigenvalue")
    return figure
