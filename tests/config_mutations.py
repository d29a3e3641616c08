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
    _nested(40), _nested(400), {"a": {"b": {"c": {"d": {}}}}},
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


def places(value: Any, start: Place = ()) -> Iterator[Place]:
    """Every place in a nested value, outer ones first."""
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        yield (*start, key)
        yield from places(part, (*start, key))


def _pick(raw: Raw, rng: random.Random) -> tuple[Any, Any, str]:
    """A container and a key in it, deep places as often as shallow ones."""
    found = [*places(raw)] or [("datasets",)]
    depth = rng.choice(sorted({len(place) for place in found}))
    place = rng.choice([one for one in found if len(one) == depth])
    inner: Any = raw
    for key in place[:-1]:
        inner = inner[key]
    return inner, place[-1], ".".join(str(part)[:40] for part in place)


def _set(raw: Raw, rng: random.Random) -> str:
    container, key, name = _pick(raw, rng)
    value = copy.deepcopy(rng.choice(VALUES))
    container[key] = value
    return f"{name} = {_short(value)}"


def _scale(raw: Raw, rng: random.Random) -> str:
    """Another number where one is."""
    numbers = [
        place for place in places(raw) if type(_at(raw, place)) in (int, float) and len(place) > 1
    ]
    if not numbers:
        return _set(raw, rng)
    place = rng.choice(numbers)
    value = _at(raw, place)
    factor = rng.choice([-1, 0, 10, 1000, 10**6, 10**9, 10**15, 10**40])
    changed = rng.choice([value * factor, value + 1, value - 1, float(value), f"{value}"])
    _at(raw, place[:-1])[place[-1]] = changed
    return f"{'.'.join(map(str, place))} = {_short(changed)}"


def _remove(raw: Raw, rng: random.Random) -> str:
    container, key, name = _pick(raw, rng)
    if container is raw and key not in raw:
        return "nothing"
    del container[key]
    return f"{name} removed"


def _rename(raw: Raw, rng: random.Random) -> str:
    container, key, name = _pick(raw, rng)
    if isinstance(container, dict) and key in container:
        texts = [value for value in VALUES if isinstance(value, str)]
        new = rng.choice([*texts, f"{key}s", str(key).upper(), 1, None, 2.5, True, (1, 2)])
        container[new] = container.pop(key)
        return f"{name} renamed to {_short(new)}"
    return _set(raw, rng)


def _swap(raw: Raw, rng: random.Random) -> str:
    """Exchange two values that do not contain each other."""
    first, key, name = _pick(raw, rng)
    second, other, other_name = _pick(raw, rng)
    if name.startswith(other_name) or other_name.startswith(name):
        return _set(raw, rng)
    first[key], second[other] = second[other], first[key]
    return f"{name} and {other_name} swapped"


def _copy_in(raw: Raw, rng: random.Random) -> str:
    """A value of one place also at another."""
    first, key, name = _pick(raw, rng)
    second, other, other_name = _pick(raw, rng)
    second[other] = copy.deepcopy(first[key]) if key in first or first is not raw else None
    return f"{other_name} = {name}"


def _add(raw: Raw, rng: random.Random) -> str:
    container, key, name = _pick(raw, rng)
    inner = container[key] if key in container or container is not raw else None
    value = copy.deepcopy(rng.choice(VALUES))
    if isinstance(inner, dict):
        inner[rng.choice(["like", "for", "groups", "kind", "new", "x" * 300])] = value
    elif isinstance(inner, list):
        inner.insert(rng.randrange(len(inner) + 1), value)
    else:
        container[key] = [value]
    return f"{name} plus {_short(value)}"


def _wrap(raw: Raw, rng: random.Random) -> str:
    container, key, name = _pick(raw, rng)
    inner = container[key] if key in container or container is not raw else None
    container[key] = rng.choice([[inner], {"like": inner}, {name: inner}, [inner, inner]])
    return f"{name} wrapped"


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


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    return ascii(value)[:60]
