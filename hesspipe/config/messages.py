"""Mistakes in a configuration, one readable line each: key, value, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
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
    mistakes: Iterable[Mapping[str, Any]], raw: Any, known_keys: Iterable[str]
) -> list[str]:
    """Say pydantic's errors, one line for each key.

    Parameters
    ----------
    mistakes : iterable of mapping
        What `pydantic.ValidationError.errors` gives.
    raw : object
        The content of the whole file, to tell its keys from what pydantic adds to a path.
    known_keys : iterable of str
        Every key that the file may have, for a suggestion.

    Returns
    -------
    list of str
        Each with the key, what is allowed, and the value.
    """
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for mistake in mistakes:
        by_key.setdefault(_key(mistake, raw), []).append(mistake)
    lines = []
    for key, entries in by_key.items():
        # Of a key that may be one thing or another, the mistake inside the fitting one counts.
        if not any(other.startswith(f"{key}.") for other in by_key):
            lines.append(_line(key, entries, sorted(known_keys)))
    return lines


def _line(key: str, mistakes: list[Mapping[str, Any]], known_keys: list[str]) -> str:
    """What is wrong with one key."""
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
        close = difflib.get_close_matches(name, known_keys, n=1)
        return f"{key} is not a known key" + (f"; did you mean {close[0]}?" if close else "")
    if kind == "union_tag_invalid":
        key += "." + context["discriminator"].strip("'")
        value = context["tag"]
    allowed = " or ".join(dict.fromkeys(_allowed(mistake) for mistake in mistakes))
    return f"{key} must be {allowed}, got {value!r}{_hint(kind, value)}"


def _key(mistake: Mapping[str, Any], raw: Any) -> str:
    """Dotted place of a mistake; what pydantic adds to the path is no key of the file."""
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


def _allowed(mistake: Mapping[str, Any]) -> str:
    """What a value may be."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind in _BOUNDS:
        phrase, name = _BOUNDS[kind]
        return f"{phrase} {context[name]}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "union_tag_invalid":
        return f"one of {context['expected_tags']}"
    if kind == "string_pattern_mismatch":
        return "a name of lower-case letters, digits and _ that starts with a letter"
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
    """The way out of YAML's own traps."""
    if kind == "float_type" and isinstance(value, str):
        try:
            return f" (YAML reads this as text; write {float(value)!r})"
        except ValueError:
            return ""
    return ""
