"""Texts that are drawn or written: what matplotlib or UTF-8 refuses is refused before any job."""

from __future__ import annotations

import io
import warnings
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError
from small_project import small_config

from hesspipe.config.loading import validate_config
from hesspipe.config.types import Label, PathName, Text
from hesspipe.errors import ConfigError
from hesspipe.plots import style

LABELS = [
    r"$\foo$", "$x^{2$", "cost $5", "$5 and $6", r"\$5 and $6$", "$x_$", "$$", "a $x$\n b $y_$",
    r"$\frac{1}$", r"$\left( x$", "50% & #1 _ ^ {", r"$\lambda$", "$x^2^3$", r"$\mathbb{R}",
    "$a'_b'$", r"$\mathcircled{A}$", r"$\text{abc}$", r"$\sqrt{$", "width 8, tanh", "λ ≥ 0",
    "$" + "{" * 480 + "}" * 480 + "$", "$" + r"\sqrt{" * 150 + "x" + "}" * 150 + "$",
]  # fmt: skip
PIECES = ["$", "x", "_", "^", "{", "}", r"\frac", r"\alpha", r"\left(", r"\right)", " ", "\n"]


def can_be_drawn(label: str) -> bool:
    """Let matplotlib draw it in the style of the figures: the reference."""
    figure = Figure(figsize=(1, 1))
    figure.text(0, 0, label)
    with warnings.catch_warnings(), mpl.rc_context(style.RC_PARAMS):
        warnings.simplefilter("ignore")  # of letters that a font lacks, and of the tiny figure
        try:
            figure.savefig(io.BytesIO(), format="svg")
        except (ValueError, RecursionError):
            return False
    return True


def is_allowed(kind: Any, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label[:20])
def test_label_is_refused_exactly_if_matplotlib_cannot_draw_it(label: str) -> None:
    assert is_allowed(Label, label) == can_be_drawn(label)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_composed_label_is_refused_exactly_if_matplotlib_cannot_draw_it(label: str) -> None:
    assert is_allowed(Label, label) == can_be_drawn(label)


@pytest.mark.parametrize("kind", [Text, Label, PathName])
@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\ud800", "\r"])
def test_text_without_a_meaning_in_files_is_refused(kind: Any, character: str) -> None:
    assert is_allowed(kind, "data/λ file\u00a0😀")
    assert not is_allowed(kind, f"data/{character}")


@pytest.mark.parametrize(
    ("figure", "key", "place"),
    [("negative_part", "labels", "labels.0"), ("layers", "titles", "titles.all")],
)
def test_label_that_cannot_be_drawn_is_told_with_its_key(figure: str, key: str, place: str) -> None:
    config = {**small_config(), "claims": {}}
    [name] = [name for name, entry in config["figures"].items() if entry["kind"] == figure][:1]
    entry = config["figures"][name]
    entry[key] = {"all": r"$\foo$"} if key == "titles" else [r"$\foo$", *entry[key][1:]]
    with pytest.raises(ConfigError) as caught:
        validate_config(config)
    start = f"config.yaml: figures.{name}.{place} must be a text that matplotlib can draw ("
    assert str(caught.value).startswith(start)
    assert r"Unknown symbol: \foo" in str(caught.value)
    assert "\n" not in str(caught.value)
