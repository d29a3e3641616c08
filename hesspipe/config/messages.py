"""Messages for configuration errors, one line each: the key, the condition, the value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from hesspipe.errors import nearest_names

_MOST_NAMES = 10  # that are listed in one message
_MOST_MISTAKES = 200  # that are explained at once
_MOST_LETTERS = 200  # of a value in a message
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
# What to do where none of the forms of a section is the right one.
_ADVICE = {
    "algorithm": (
        "; train with any other algorithm in your own code, and give its state dict with "
        "{algorithm: saved, path: state.pt}"
    )
}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "model_attributes": "a mapping",
    "invalid": "text",
    "bool": "true or false",
}


def explain(
    mistakes: Iterable[Mapping[str, Any]],
    raw: Any,
    origins: Mapping[str, str],
    known_keys: Iterable[str],
) -> list[str]:
    """Convert the errors of pydantic to messages, one line for each key.

    Parameters
    ----------
    mistakes : iterable of mapping
        From `pydantic.ValidationError.errors`.
    raw : object
        The whole configuration, to distinguish its keys from those that pydantic adds to a path.
    origins : mapping
        From the place of a copied value to the place where it is written.
    known_keys : iterable of str
        Every key that the file may have, for a suggestion.

    Returns
    -------
    list of str
        Each with the key, what is allowed, and the value.
    """
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for mistake in islice(mistakes, _MOST_MISTAKES):
        by_key.setdefault(_origin(_key(mistake, raw), origins), []).append(mistake)
    lines = []
    for key, entries in by_key.items():
        # If a key may have several forms, the error in the form that fits counts.
        if not any(other.startswith(f"{key}.") for other in by_key):
            lines.append(_line(key, entries, sorted(known_keys)))
    return lines


def shown(value: Any) -> str:
    """Represent a value for a message, on one line and not too long.

    Examples
    --------
    >>> shown("a" * 1000)[190:]
    'aaaaaaaaaa... (1002 letters)'
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of more than 4,300 digits
        text = f"a {type(value).__name__} that is too long to write"
    if len(text) <= _MOST_LETTERS:
        return text
    return f"{text[:_MOST_LETTERS]}... ({len(text)} letters)"


def unknown_name(start: str, names: Iterable[Any], given: Any) -> str:
    """Describe an unknown name, with all known ones, or the nearest if there are many.

    Examples
    --------
    >>> unknown_name("figures.fig1 must read experiments,", ["small", "wide"], "wid")
    "figures.fig1 must read experiments, one of small, wide, got 'wid'"
    """
    known = sorted(map(str, names))
    if len(known) <= _MOST_NAMES:
        return f"{start} one of {', '.join(known) or 'none'}, got {shown(given)}"
    near = nearest_names(str(given)[:_MOST_LETTERS], known)
    return f"{start} one of {len(known)} names, got {shown(given)}; the nearest are {near}"


def _line(key: str, mistakes: list[Mapping[str, Any]], known_keys: list[str]) -> str:
    """Describe the error of one key."""
    kind, value = mistakes[0]["type"], mistakes[0].get("input")
    context = mistakes[0].get("ctx", {})
    if kind == "missing":
        return f"{key} is missing"
    if kind == "union_tag_not_found":
        return f"{key}.{context['discriminator'].strip(chr(39))} is missing"
    if kind == "extra_forbidden":
        name = str(mistakes[0]["loc"][-1])
        if name in known_keys:
            return f"{key} is not a key of this section"
        close = difflib.get_close_matches(name[:_MOST_LETTERS], known_keys, n=1)
        return f"{key} is not a known key" + (f"; did you mean {close[0]}?" if close else "")
    if kind == "union_tag_invalid":
        discriminator = context["discriminator"].strip("'")
        return _unknown_form(f"{key}.{discriminator}", mistakes[0])
    allowed = " or ".join(dict.fromkeys(_allowed(mistake) for mistake in mistakes))
    return f"{key} must be {allowed}, got {shown(value)}{_hint(kind, value)}"


def _unknown_form(key: str, mistake: Mapping[str, Any]) -> str:
    """Describe a kind or an algorithm that a section does not have, with the one that is meant."""
    context = mistake["ctx"]
    given, forms = str(context["tag"]), context["expected_tags"].replace("'", "").split(", ")
    close = difflib.get_close_matches(given[:_MOST_LETTERS].lower(), forms, n=1, cutoff=0.7)
    advice = f"; did you mean {close[0]}?" if close else _ADVICE.get(key.rpartition(".")[2], "")
    return f"{key} must be {_allowed(mistake)}, got {shown(given)}{advice}"


def _key(mistake: Mapping[str, Any], raw: Any) -> str:
    """Dotted place of a mistake, without the parts that pydantic adds to the path."""
    location = mistake["loc"]
    parts: list[str] = []
    for part in location:
        if (isinstance(raw, Mapping) and part in raw) or (
            isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        ):
            raw = raw[part]
            parts.append(str(part))
    if mistake["type"] == "missing":
        parts.append(str(location[-1]))
    return ".".join(parts) or "the file"


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Place where a value is written that was copied to another one."""
    for _ in origins:  # no more, as a name with a dot may look like the place of another value
        parts = key.split(".")
        prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        copied = next((prefix for prefix in prefixes if prefix in origins), None)
        if copied is None:
            break
        key = origins[copied] + key.removeprefix(copied)
    return key


def _allowed(mistake: Mapping[str, Any]) -> str:
    """Describe the allowed values."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind in _BOUNDS:
        phrase, name = _BOUNDS[kind]
        return f"{phrase} {context[name]}"
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind == "union_tag_invalid":
        return f"one of {context['expected_tags']}"
    if kind == "string_pattern_mismatch":
        return "a name of lower-case letters, digits and _ that starts with a letter"
    if kind == "string_too_long":
        return f"a text of at most {context['max_length']} letters"
    if kind == "string_too_short":
        return f"a text of at least {context['min_length']}"
    if kind == "too_short":
        what = "a list" if context["field_type"] == "List" else "a mapping"
        return f"{what} of at least {context['min_length']}"
    if kind == "too_long":
        return f"a list of at most {context['max_length']}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "finite_number":
        return "a finite number"
    return _TYPES.get(kind.rsplit("_", 1)[0], str(mistake["msg"]))


def _hint(kind: str, value: Any) -> str:
    """Advice on values that YAML reads as another type."""
    if isinstance(value, bool) and kind in ("literal_error", "enum", "string_type"):
        return " (YAML reads yes, no, on and off as true and false; write it in quotes)"
    if kind == "list_type" and isinstance(value, str | int | float):
        return f"; write [{value}]"
    if kind in ("float_type", "int_type") and isinstance(value, str):
        return _number_hint(value, is_whole=kind == "int_type")
    return ""


def _number_hint(text: str, *, is_whole: bool) -> str:
    """Advice on a number that YAML reads as text: 1e-6 has no point, 1.0e6 no sign."""
    try:
        number = float(text)
    except ValueError:
        return ""
    if not math.isfinite(number) or (is_whole and not number.is_integer()):
        return ""
    mantissa, sign, exponent = repr(number).partition("e")
    written = f"{mantissa}{'' if '.' in mantissa or not sign else '.0'}{sign}{exponent}"
    return f" (YAML reads this as text; write {int(number) if is_whole else written})"
