"""H = G + R through training: the curves of each panel."""

from __future__ import annotations

import pandas as pd

from hesspipe.figures import decomposition
from hesspipe.tables.store import Result


def test_decomposition_shows_each_quantity_against_the_steps() -> None:
    steps = [0, 10, 20]
    table = pd.DataFrame(
        {
            "step": steps, "operator_ratio": [1.0, 0.5, 0.1], "frobenius_ratio": [2.0, 1.0, 0.2],
            "largest_difference": [0.3, 0.2, 0.1], "smallest_hessian": [-3.0, -2.0, -1.0],
            "smallest_residual": [-4.0, -3.0, -2.0], "num_negative_hessian": [5, 6, 7],
            "num_negative_residual": [8, 9, 10], "num_outliers": [1, 2, 3],
            "num_outliers_ggn": [2, 3, 3],
        }
    )  # fmt: skip
    # The counts of another rule are others.
    other = table.assign(rule="gap", num_outliers=9, num_outliers_ggn=9)
    long = pd.concat([other, table.assign(rule="ratio")])
    result = Result("decomposition", long, {"num_classes": 3})
    ratios, ends, negatives, outliers = decomposition.make_figure([result], {"rule": "ratio"}).axes
    for axes, columns in (
        (ratios, ["operator_ratio", "frobenius_ratio", "largest_difference"]),
        (negatives, ["num_negative_hessian", "num_negative_residual"]),
        (outliers, ["num_outliers", "num_outliers_ggn"]),
    ):
        for line, column in zip(axes.lines, columns, strict=False):
            assert list(line.get_xdata()) == steps
            assert list(line.get_ydata()) == table[column].tolist()
    assert [list(line.get_ydata()) for line in ends.lines] == [[3, 2, 1], [4, 3, 2]]
    assert outliers.lines[2].get_ydata()[0] == 3
    assert ratios.get_yscale() == ends.get_yscale() == "log"
