"""Results and objectives are shown in at most six lines, with their numbers, at no cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hesspipe
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.summaries import ends, layout, summary


@pytest.fixture(scope="module")
def objective() -> hesspipe.Objective:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    data = torch.randn(9, 3), torch.randint(2, (9,))
    return hesspipe.Objective(model, torch.nn.CrossEntropyLoss(), data)


def shown(objective: hesspipe.Objective) -> dict[str, Any]:
    density = hesspipe.density(objective, num_steps=20)
    grid = torch.linspace(-3, 3, 500, dtype=torch.float64)
    operator = hesspipe.GGNOperator(objective)
    return {
        "Objective": objective,
        "Batch": objective.batches[0],
        "GGNOperator": operator,
        "DiagonalBlock": hesspipe.DiagonalBlock(operator, torch.arange(26) < 12),
        "Spectrum": hesspipe.spectrum(objective),
        "Eigenpairs": hesspipe.eigenpairs(objective, num_smallest=3, num_largest=4),
        "Density": density,
        "Curve": density.evaluate(grid, 0.1),
        "Distribution": density.distribution(grid + 1e-3),
        "NormEstimates": hesspipe.estimate_norms(objective),
        "Estimate": hesspipe.estimate_norms(objective).trace,
        "OutlierCount": hesspipe.count_outliers(torch.arange(500.0)),
    }


def test_repr_is_short_and_names_its_class(objective: hesspipe.Objective) -> None:
    for name, result in shown(objective).items():
        lines = repr(result).splitlines()
        assert lines[0].startswith(f"{name}("), name
        assert len(lines) <= 6, name
        assert max(map(len, lines)) <= 100, name


def test_repr_has_the_numbers_of_the_result(objective: hesspipe.Objective) -> None:
    found = shown(objective)
    assert "num_parameters=26, num_data=9, num_batches=1" in repr(objective)
    assert "num_outputs=2, dtype=torch.float64, device=cpu" in " ".join(repr(objective).split())
    spectrum = found["Spectrum"]
    for name in ("num_negative", "num_zero", "num_positive"):
        assert f"{name}={getattr(spectrum, name)}" in repr(spectrum)
    assert f"error_bound={spectrum.error_bound:.4g}" in repr(spectrum)
    for values in (spectrum.eigenvalues, found["Eigenpairs"].eigenvalues):
        assert f"[{values[0]:.4g}, {values[1]:.4g}, ..., {values[-2]:.4g}, {values[-1]:.4g}]" in (
            repr(spectrum) + repr(found["Eigenpairs"])
        )
    assert "(12, 12)" in repr(found["DiagonalBlock"])
    assert "inputs=(9, 3) float64" in repr(found["Batch"])


def test_repr_does_not_read_eigenvectors_of_another_device() -> None:
    values = torch.tensor([1.0], dtype=torch.float64)
    elsewhere = torch.empty(10**9, 1, device="meta")  # has no values to be read
    found = Eigenpairs(values, elsewhere, values, 3, "hessian", 0, 1)
    assert "eigenvectors=(1000000000, 1) float32 on meta" in repr(found)


def test_repr_of_an_objective_that_failed_does_not_fail() -> None:
    assert repr(hesspipe.Objective.__new__(hesspipe.Objective)) == "Objective(not built)"


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "[]"), ([2.0], "[2]"), ([1.0, 2.0, 3.0, 4.0], "[1, 2, 3, 4]"),
     ([1.0] * 2000, "[1, 1, ..., 1, 1] (2,000 values)")],
)  # fmt: skip
def test_ends_shows_short_vectors_whole(values: list[float], text: str) -> None:
    assert str(ends(values)) == text
    assert str(ends(torch.tensor(values))) == text


def test_summary_breaks_lines_between_facts_only() -> None:
    text = summary("Name", first="a b" * 20, second="c d" * 20, third=None)
    assert text == f"Name(first={'a b' * 20!r},\n     second={'c d' * 20!r})"
    assert str(layout(torch.zeros(2))) == "(2,) float32"
