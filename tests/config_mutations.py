"""Random mutations of a configuration: what a slip of the hand, or of a program, may make of one.

From the mapping that a YAML file holds, `mutated_mappings` makes others, and `mutated_texts` does
so from the file's text. Both are endless, and equal seeds give equal mutations.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

Place = tuple[Any, ...]
Raw = dict[str, Any]


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


# In place of any value.
VALUES: list[Any] = [
    # Types.
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, "", "text", [], {}, [None], [[]], [{}], {"a": 1},
    [1, "a", None], {"like": "nothing"}, {"for": {}}, "0", "1e-3", "null", "true", b"bytes",
    # Huge and tiny.
    10**6, 10**9, 10**12, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(10**400),
    10**5000, 1e15, 1e30, 1e100, 1e300, 1.7e308, -1.7e308, 1e-15, 1e-30, 1e-300, 5e-324,
    # No numbers.
    math.nan, math.inf, -math.inf,
    # Texts.
    "a" * 101, "a" * 300, "a" * 5000, "x" * 100_000, "\x00", "a\nb", "\t", " ", "é", "\u202e",
    "\ud800", "😀" * 200, "../../elsewhere", "/dev/zero", "/dev/null", "/", ".", "~", "-", "a b",
    "{k}", "{", "{}", "{0}", "{a.b}", "%s", "$HOME", "`id`", "__main__:x", "os:system", ":",
    "a:b:c", "a..b:c", "builtins:exec", "all", "ends", "hessian",
    # Lists and mappings.
    list(range(1000)), [0] * 1000, ["a"] * 1000, [1e308] * 5, list(range(100_000)),
    {f"key{number}": number for number in range(1000)}, {1: 2}, {None: 1}, {"a" * 300: 1},
    _nested(40), _nested(100), {"a": {"b": {"c": {"d": {}}}}},
]  # fmt: skip


def mutated_mappings(raw: Raw, seed: int) -> Iterator[tuple[str, Raw]]:
    """Mutate a configuration once or a few times.

    Parameters
    ----------
    raw : dict
        As YAML gives it; not modified.
    seed : int

    Yields
    ------
    str
        What was done.
    dict
    """
    rng = random.Random(seed)
    while True:
        result, done = copy.deepcopy(raw), []
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            done.append(rng.choice(_MUTATIONS)(result, rng))
        yield "; ".join(done), result


def mutated_texts(text: str, seed: int) -> Iterator[tuple[str, bytes]]:
    """Mutate the text of a YAML file once or a few times; the same for its bytes."""
    rng = random.Random(seed)
    while True:
        content, done = text.encode(), []
        for _ in range(rng.choice([1, 1, 2, 3])):
            name = rng.choice(sorted(_TEXT_MUTATIONS))
            content = _TEXT_MUTATIONS[name](content, rng)
            done.append(name)
        yield "; ".join(done), content


def places(value: Any) -> Iterator[Place]:
    """Every place in a nested value."""
    waiting: list[tuple[Place, Any]] = [((), value)]
    while waiting:
        start, inner = waiting.pop()
        parts = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for key, part in parts:
            yield (*start, key)
            if isinstance(part, dict | list):
                waiting.append(((*start, key), part))


def _pick(raw: Raw, rng: random.Random) -> Place:
    """A place, deep ones as often as shallow ones."""
    found = [*places(raw)] or [("datasets",)]
    depth = rng.choice(sorted({len(place) for place in found}))
    return rng.choice([one for one in found if len(one) == depth])


def _put(raw: Raw, place: Place, value: Any) -> None:
    _at(raw, place[:-1])[place[-1]] = value


def _set(raw: Raw, rng: random.Random) -> str:
    place, value = _pick(raw, rng), copy.deepcopy(rng.choice(VALUES))
    _put(raw, place, value)
    return f"{_name(place)} = {_short(value)}"


def _scale(raw: Raw, rng: random.Random) -> str:
    """Another number where one is."""
    numbers = [place for place in places(raw) if type(_at(raw, place)) in (int, float)]
    if not numbers:
        return _set(raw, rng)
    place = rng.choice(numbers)
    value = _at(raw, place)
    factor = rng.choice([-1, 0, 10, 1000, 10**6, 10**9, 10**15, 10**40])
    changed = rng.choice([value * factor, value + 1, value - 1, float(value), f"{value}"])
    _put(raw, place, changed)
    return f"{_name(place)} = {_short(changed)}"


def _remove(raw: Raw, rng: random.Random) -> str:
    place = _pick(raw, rng)
    if _value(raw, place) is not None:
        del _at(raw, place[:-1])[place[-1]]
    return f"{_name(place)} removed"


def _rename(raw: Raw, rng: random.Random) -> str:
    place = _pick(raw, rng)
    container = _at(raw, place[:-1])
    if not isinstance(container, dict) or place[-1] not in container:
        return _set(raw, rng)
    texts = [value for value in VALUES if isinstance(value, str)]
    new = rng.choice([*texts, f"{place[-1]}s", str(place[-1]).upper(), 1, None, 2.5, True, (1, 2)])
    container[new] = container.pop(place[-1])
    return f"{_name(place)} renamed to {_short(new)}"


def _swap(raw: Raw, rng: random.Random) -> str:
    """Exchange two values that do not contain each other."""
    first, second = sorted([_pick(raw, rng), _pick(raw, rng)], key=len)
    if second[: len(first)] == first:
        return _set(raw, rng)
    # A value may stand in several places, so that the first change may take the second place away.
    containers = _at(raw, first[:-1]), _at(raw, second[:-1])
    values = copy.deepcopy((_value(raw, first), _value(raw, second)))
    containers[0][first[-1]], containers[1][second[-1]] = values[1], values[0]
    return f"{_name(first)} and {_name(second)} swapped"


def _copy_in(raw: Raw, rng: random.Random) -> str:
    """A value of one place also at another."""
    first, second = _pick(raw, rng), _pick(raw, rng)
    _put(raw, second, copy.deepcopy(_value(raw, first)))
    return f"{_name(second)} = {_name(first)}"


def _add(raw: Raw, rng: random.Random) -> str:
    place, value = _pick(raw, rng), copy.deepcopy(rng.choice(VALUES))
    inner = _value(raw, place)
    if isinstance(inner, dict):
        inner[rng.choice(["like", "for", "groups", "kind", "new", "x" * 300])] = value
    elif isinstance(inner, list):
        inner.insert(rng.randrange(len(inner) + 1), value)
    else:
        _put(raw, place, [value])
    return f"{_name(place)} plus {_short(value)}"


def _wrap(raw: Raw, rng: random.Random) -> str:
    place = _pick(raw, rng)
    inner = _value(raw, place)
    _put(raw, place, rng.choice([[inner], {"like": inner}, {"new": inner}, [inner, inner]]))
    return f"{_name(place)} wrapped"


_MUTATIONS: list[Callable[[Raw, random.Random], str]] = [
    _set, _set, _set, _scale, _scale, _remove, _rename, _swap, _copy_in, _add, _wrap,
]  # fmt: skip


def _lines(change: Callable[[list[bytes], int, random.Random], None]) -> Any:
    def mutate(content: bytes, rng: random.Random) -> bytes:
        lines = content.split(b"\n")
        change(lines, rng.randrange(len(lines)), rng)
        return b"\n".join(lines)

    return mutate


def _bytes(*inserted: bytes) -> Any:
    def mutate(content: bytes, rng: random.Random) -> bytes:
        start = rng.randrange(len(content) + 1)
        return content[:start] + rng.choice(inserted) + content[start + rng.randrange(3) :]

    return mutate


_TEXT_MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a line twice": _lines(lambda lines, at, _: lines.insert(at, lines[at])),
    "a line less": _lines(lambda lines, at, _: lines.__delitem__(at)),
    "two lines exchanged": _lines(
        lambda lines, at, rng: lines.insert(rng.randrange(len(lines)), lines.pop(at))
    ),
    "a line indented": _lines(lambda lines, at, rng: lines.insert(at, b"  " + lines.pop(at))),
    "a tab": _lines(lambda lines, at, rng: lines.insert(at, b"\t" + lines.pop(at))),
    "a sign": _bytes(*(bytes([sign]) for sign in b"{}[]:,&*!|>'\"#%@`?-\\~<=")),
    "a control character": _bytes(b"\x00", b"\x07", b"\x1b", b"\x7f", b"\r", b"\x85", b"\xa0"),
    "a byte that is not UTF-8": _bytes(b"\xff", b"\xc3", b"\xe9", b"\xed\xa0\x80", b"\xf8"),
    "a tag": _bytes(b"!!python/name:os.system ", b"!!binary ", b"!x ", b"!!float ", b"!<x> "),
    "an anchor or alias": _bytes(b"&a ", b"*a ", b"<<: ", b"<<: *a\n", b"*photographs "),
    "a document": _bytes(b"\n---\n", b"\n...\n", b"%YAML 9.9\n---\n"),
    "a number": _bytes(b"1:30", b"0x1F", b"0b1", b"0o7", b"1_0", b"9" * 5000, b"0x" + b"F" * 9999),
    "a word": _bytes(b"yes ", b"null ", b"2026-01-01 ", b".inf ", b".nan ", b"~ "),
    "cut off": lambda content, rng: content[: rng.randrange(len(content) + 1)],
    "UTF-16": lambda content, _: content.decode(errors="replace").encode("utf-16"),
    "a byte-order mark": lambda content, _: b"\xef\xbb\xbf" + content,
    "deep": lambda content, rng: content + b"\nx: " + b"[" * rng.choice([40, 60, 10_000]),
}


def _at(raw: Any, place: Place) -> Any:
    for key in place:
        raw = raw[key]
    return raw


def _value(raw: Raw, place: Place) -> Any:
    """The value at a place, None if an empty configuration has it not."""
    return _at(raw, place) if raw else None


def _name(place: Place) -> str:
    return ".".join(_short(part).strip("'") for part in place)


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    return ascii(value)[:60]
