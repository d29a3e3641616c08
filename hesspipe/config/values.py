"""Values that no configuration can hold, found before anything is made of them.

A file of YAML is checked by `hesspipe.config.yaml_files`; values may also come from Snakemake's
command line, from JSON or from a program. After this check, every later step ends soon and its
messages have one line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from hesspipe.config.messages import shown

# Far above any configuration written by hand: ours has 400 lines, 15 levels and 10,000 values.
MOST_LEVELS = 50
MOST_VALUES = 500_000
_MOST_ENTRIES = 10_000  # of a list or mapping
_MOST_LETTERS = 100_000  # of a text
_LONGEST_KEY = 200
_LARGEST_INTEGER = 2**64
_MOST_MISTAKES = 10
_ALLOWED_CONTROLS = "\n\t"

# A key and the place of the mapping or list that has it; written out for a message only.
_Place = tuple[Any, Any] | None


def impossible_values(raw: Mapping[Any, Any]) -> Iterator[str]:
    """Find keys that are not text, control characters, huge numbers, and too much of anything.

    Parameters
    ----------
    raw : mapping
        May hold itself, and one object many times.

    Yields
    ------
    str
        One line each, of the first few; an error of the whole ends the search.
    """
    waiting: list[tuple[_Place, Any, int]] = [(None, dict(raw), 0)]
    count = num_mistakes = 0
    while waiting and num_mistakes < _MOST_MISTAKES:
        place, value, level = waiting.pop()
        count += 1
        if level > MOST_LEVELS:
            yield f"{_written(place)[:100]}... must have at most {MOST_LEVELS} levels, got more"
            return
        if count + len(waiting) > MOST_VALUES:
            yield f"the file must have at most {MOST_VALUES:,} values, with aliases, got more"
            return
        mistake = _wrong_value(value)
        if isinstance(value, dict) and mistake is None:
            mistake = next(filter(None, map(_wrong_key, value)), None)
        if mistake is not None:
            num_mistakes += 1
            yield f"{_written(place)} {mistake}"
        elif isinstance(value, (dict, list)):
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += reversed([((place, key), part, level + 1) for key, part in parts])


def _written(place: _Place) -> str:
    """Join the keys of a place by dots."""
    keys: list[str] = []
    while place is not None:
        place, key = place
        keys.append(str(key))
    return ".".join(reversed(keys)) or "the file"


def _wrong_key(key: Any) -> str | None:
    if not isinstance(key, str):
        return f"must have texts as keys, got {shown(key)}"
    if not key.isprintable() or len(key) > _LONGEST_KEY:
        return f"must have printable keys of at most {_LONGEST_KEY} letters, got {shown(key)}"
    return None


def _wrong_value(value: Any) -> str | None:
    """Describe a value that no key can have."""
    if isinstance(value, int):
        if abs(value) > _LARGEST_INTEGER:
            return f"must be at most 2^64 in size, got an integer of {value.bit_length()} bits"
    elif isinstance(value, str):
        if len(value) > _MOST_LETTERS:
            return f"must be at most {_MOST_LETTERS:,} letters, got {len(value):,}"
        if not value.isprintable() and any(map(_is_forbidden, value)):
            return f"must be a text without control characters, got {shown(value)}"
    elif isinstance(value, (dict, list)):
        if len(value) > _MOST_ENTRIES:
            return f"must have at most {_MOST_ENTRIES:,} entries, got {len(value):,}"
    elif not isinstance(value, (float, type(None))):
        return (
            f"must be a text, a number, true or false, a list or a mapping, got {shown(value)} "
            f"({type(value).__name__})"
        )
    return None


def _is_forbidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs") and letter not in _ALLOWED_CONTROLS
