"""Progress bars: shown where a person watches, and what they say."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
import torch
from problems import normal
from tqdm import tqdm

import hesspipe
from hesspipe import progress
from hesspipe.linalg.thick_restart import _approach
from hesspipe.progress import bar_options


class Terminal(io.StringIO):
    """A stream that a person may watch."""

    def __init__(self, is_watched: bool) -> None:
        super().__init__()
        self.is_watched = is_watched

    def isatty(self) -> bool:
        return self.is_watched


MATRIX = torch.diag(normal(40).abs().cumsum(0))
CALLS: dict[str, Any] = {
    "eigenpairs": lambda **options: hesspipe.eigenpairs(MATRIX, num_largest=3, **options),
    "density": lambda **options: hesspipe.density(MATRIX, num_steps=5, **options),
    "norms": lambda **options: hesspipe.estimate_norms(MATRIX, num_products=12, **options),
    "norms of all": lambda **options: hesspipe.estimate_norms(MATRIX, num_products=99, **options),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_watched", [False, True])
def test_bars_are_shown_by_default_on_a_terminal_only(
    name: str, is_watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    stream = Terminal(is_watched)
    monkeypatch.setattr(sys, "stderr", stream)
    CALLS[name]()
    assert (name.split()[0] in stream.getvalue()) == is_watched
    stream.truncate(0)
    CALLS[name](progress=False)
    assert not stream.getvalue()
    CALLS[name](progress=True)
    assert name.split()[0] in stream.getvalue()


def test_bars_that_nobody_asked_for_wait() -> None:
    stream = Terminal(True)
    for _ in tqdm(range(3), file=stream, **bar_options(None)):
        pass
    assert not stream.getvalue()


def test_bar_of_eigenpairs_tells_how_far_the_residuals_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    matrix = torch.diag(normal(300).abs().cumsum(0))
    hesspipe.eigenpairs(matrix, num_largest=2, basis_size=8, progress=True)
    shown = capsys.readouterr().err
    falls = [float(part.split(",")[0]) for part in shown.split("residuals to fall by ")[1:]]
    assert len(falls) > 3
    assert falls[-1] < 1e-3 * falls[0]
    assert "looking for more of them" in shown
    assert _approach(0.5, 1.0, 7) == "residuals small enough, 7 products"
    assert _approach(0.0, 0.0, 7) == "residuals small enough, 7 products"  # of zeros
    assert _approach(1e-9, 0.0, 7) == "residuals to fall by inf, 7 products"
