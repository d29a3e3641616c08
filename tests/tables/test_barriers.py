"""The table of barriers: both losses on each line, and the losses at its end points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.landscape.paths import line_coefficients
from hesspipe.tables import barriers
from hesspipe.tables.store import Result


def line(first: dict[str, object], second: dict[str, object], height: float) -> Result:
    """A line whose training loss is a parabola of this height, and whose test loss is straight."""
    places = np.array(line_coefficients(4, 1))
    table = pd.DataFrame(
        {
            "coefficient": places,
            "train_loss": 1 + 4 * height * places * (1 - places),
            "train_accuracy": 0.9 - 0.1 * places,
            "test_loss": 2 + places,
            "test_accuracy": 0.8 + 0.01 * places,
        }
    )
    return Result("line", table, {"first": first, "second": second})


def test_make_table_has_the_barriers_of_both_losses_and_their_end_points() -> None:
    one = {"experiment": "part_one", "seed": 0, "step": 10}
    two = {"experiment": "part_two", "seed": 1, "step": 10, "aligned_to": 0}
    table = barriers.make_table([line(one, two, 0.5), line(two, one, 0.0)], {})
    assert list(table["from"]) == ["part_one seed 0"] * 2 + ["part_two seed 1 aligned"] * 2
    assert list(table["to"]) == ["part_two seed 1 aligned"] * 2 + ["part_one seed 0"] * 2
    assert list(table["loss"]) == ["train", "test"] * 2
    assert list(table["barrier"]) == [0.5, 0, 0, 0]
    assert list(table["place"]) == [0.5, 0, 0, 0]
    assert list(table["rise"]) == [0.5, 0, 0, 0]
    assert list(table["at_start"]) == [1, 2, 1, 2]
    assert list(table["at_end"]) == [1, 3, 1, 3]
    assert list(table["accuracy_at_end"]) == pytest.approx([0.8, 0.81, 0.8, 0.81], rel=1e-12)
