"""Figure 2: the largest eigenvalues, colored by the cutoff below the outliers."""

import numpy as np
import pandas as pd
from figure_marks import dots, straight

from hesspipe.figures import gaps
from hesspipe.plots import style
from hesspipe.tables.store import Result

SIZE = 40
# The order of the panels; 2 comes first, 3 has a negative eigenvalue among the largest.
CUTOFFS = {5: 0.03, 2: 2.0, 3: 0.5}
SETTINGS = {"rule": "ratio", "num_largest": 12}


def bulk_and_top(num_classes: int) -> np.ndarray:
    top = np.geomspace(CUTOFFS[num_classes] * 2, CUTOFFS[num_classes] * 20, num_classes - 1)
    bulk = np.linspace(-1.0, 0.9, SIZE - len(top)) * CUTOFFS[num_classes]
    return np.concatenate([bulk, top])


def spectrum(num_classes: int, first_rank: int = 0) -> Result:
    ranks = range(first_rank, first_rank + SIZE)
    table = pd.DataFrame({"rank": ranks, "eigenvalue": bulk_and_top(num_classes)})
    provenance = {
        "experiment": f"k{num_classes}", "seed": 0, "step": 9, "matrix": "hessian",
        "num_classes": num_classes,
    }  # fmt: skip
    return Result("spectrum", table, provenance)


def counts(num_classes: int, cutoff: float) -> Result:
    """The counts of another rule, step and matrix are others."""
    rows = [(9, "hessian", "ratio", num_classes - 1, cutoff)]
    rows += [(9, "hessian", "gap", 7, 9.0), (0, "hessian", "ratio", 8, 9.0)]
    rows += [(9, "ggn", "ratio", 6, 9.0)]
    table = pd.DataFrame(rows[::-1], columns=["step", "matrix", "rule", "num_outliers", "cutoff"])
    return Result("outliers", table, {"experiment": f"k{num_classes}", "seed": 0})


SPECTRA = [spectrum(k) for k in CUTOFFS]
# In another order than the spectra.
OUTLIERS = [counts(k, CUTOFFS[k]) for k in sorted(CUTOFFS)]
RESULTS = SPECTRA + OUTLIERS


def test_gaps_shows_the_largest_eigenvalues_of_each_panel():
    figure = gaps.make_figure(RESULTS, SETTINGS)
    assert len(figure.axes) == 3
    for axes, k in zip(figure.axes, CUTOFFS, strict=True):
        assert dots(axes) == (list(range(SIZE - 12, SIZE)), bulk_and_top(k)[-12:].tolist())


def test_gaps_colors_what_lies_above_the_cutoff():
    for axes, k in zip(gaps.make_figure(RESULTS, SETTINGS).axes, CUTOFFS, strict=True):
        outlying, rest = (
            dots(axes, color)[1] for color in (style.OUTLIER_COLOR, style.MATRIX_COLORS["hessian"])
        )
        assert (len(outlying), len(rest)) == (k - 1, 12 - (k - 1))
        assert min(outlying) > CUTOFFS[k] >= max(rest)


def test_gaps_colors_nothing_at_the_cutoff_itself():
    outliers = [counts(k, cutoff=bulk_and_top(k).max()) for k in CUTOFFS]
    for axes in gaps.make_figure(SPECTRA + outliers, SETTINGS).axes:
        assert dots(axes, style.OUTLIER_COLOR) == ([], [])


def test_gaps_draws_the_cutoff_where_it_is():
    for axes, k in zip(gaps.make_figure(RESULTS, SETTINGS).axes, CUTOFFS, strict=True):
        (cutoff,) = straight(axes, "--")
        assert list(cutoff.get_ydata()) == [CUTOFFS[k]] * 2
        assert cutoff.get_label() == "cutoff"


def test_gaps_leaves_k_eigenvalues_to_the_right_of_its_line():
    for axes, k in zip(gaps.make_figure(RESULTS, SETTINGS).axes, CUTOFFS, strict=True):
        (line,) = straight(axes, "-")
        (position,) = set(line.get_xdata())
        assert sum(rank > position for rank in dots(axes)[0]) == k
        assert position % 1 == 0.5  # between two ranks, on neither


def test_gaps_has_one_logarithmic_axis_that_clips():
    figure = gaps.make_figure(RESULTS, SETTINGS | {"num_largest": 30})
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    clipped = figure.axes[0].transData.transform([(0, -1.0)])
    assert np.isfinite(clipped).all()


def test_gaps_names_its_axes_and_lines():
    figure = gaps.make_figure(RESULTS, SETTINGS)
    assert [axes.get_ylabel() for axes in figure.axes] == [r"eigenvalue $\lambda$ (nats)", "", ""]
    assert figure.get_supxlabel() == "rank of the eigenvalue"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "cutoff",
        "$k$ eigenvalues to its right",
    ]
    assert figure.get_size_inches().tolist() == [5.5, 2.6]


def test_gaps_says_k_and_the_count_above_each_panel():
    figure = gaps.make_figure(RESULTS, SETTINGS)
    assert [axes.get_title() for axes in figure.axes] == [
        "$k = 5$\n4 above the gap",
        "$k = 2$\n1 above the gap",
        "$k = 3$\n2 above the gap",
    ]


def test_gaps_labels_its_first_and_last_rank():
    spectra = [spectrum(k, first_rank=4000) for k in CUTOFFS]
    for axes in gaps.make_figure(spectra + OUTLIERS, SETTINGS).axes:
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert dict(zip(axes.get_xticks(), labels, strict=True)) == {4028: "4,028", 4039: "4,039"}
