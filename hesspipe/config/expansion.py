"""Shorthand in a configuration, written out before the configuration is checked.

- A section may be the name of a file that holds it: ``claims: statements.yaml``.
- An entry with ``for`` is a grid, one entry for each combination of values, which replace the
  placeholders in its name and in its values: ``blobs_k{k}: {for: {k: [2, 5]}, ...}``. An entry
  that is written out replaces the grid's entry of the same name.
- ``like: name`` starts from the entry of that name in the same section, and changes the keys
  given next to it; ``like`` an entry's own name means the grid's entry. In the model and training
  of an experiment the name is one of `models` and `trainings`, where the name alone is enough.
- In a list of names, the name of one of `groups` stands for all its members.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from hesspipe.config.groups import READERS, resolve_groups
from hesspipe.config.messages import shown, unknown_name
from hesspipe.config.values import impossible_values
from hesspipe.config.yaml_files import read_yaml
from hesspipe.errors import ConfigError

INCLUDABLE = READERS
SECTIONS = ("models", "trainings", "datasets", "experiments", "random_matrices", *READERS)
NAMED_PARTS = {"model": "models", "training": "trainings"}
# A grid of more is a slip, and would take minutes to check.
_MOST_ENTRIES = 10_000
_MOST_LETTERS = 10 * 2**20  # of all its entries
_LONGEST_CHAIN = 50  # of entries that start from each other
_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Raw = dict[str, Any]


@dataclass
class Expansion:
    """A configuration without shorthand, and the errors found in writing it out.

    Attributes
    ----------
    raw : dict
        The configuration.
    origins : dict
        From the place of a value that was copied to the place where it is written.
    mistakes : list of str
        One line each.
    """

    raw: Raw
    origins: dict[str, str] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


def expand(raw: Mapping[str, Any], folder: Path) -> Expansion:
    """Write out every grid, name, group and file.

    Parameters
    ----------
    raw : mapping
        As read from YAML. Parts that are not of the expected form are left for the later check.
    folder : Path
        The configuration's; names of files are relative to it.
    """
    found = Expansion({**raw})
    for section in INCLUDABLE:
        _include(section, folder, found)
    from_grids = {section: _expand_grids(section, found) for section in SECTIONS}
    for section in SECTIONS:
        _resolve_likes(section, from_grids[section], found)
    _resolve_parts(found)
    resolve_groups(found.raw, found.mistakes)
    return found


def _include(section: str, folder: Path, found: Expansion) -> None:
    name = found.raw.get(section)
    if not isinstance(name, str):
        return
    if not _is_file(folder, name):
        found.mistakes.append(
            f"{section} must be a mapping or the name of a file, got {shown(name)}, which does not "
            "exist"
        )
        found.raw[section] = {}
        return
    try:
        content = read_yaml(folder / name)
    except ConfigError as error:
        found.mistakes.append(str(error))
        found.raw[section] = {}
        return
    if set(content) != {section}:
        found.mistakes.append(
            f"{name} must hold the key {section!r} and no other, got "
            f"{shown(sorted(map(str, content)))}"
        )
    found.mistakes += [f"{name}: {line}" for line in impossible_values(content)]
    found.raw[section] = content.get(section, {})


def _is_file(folder: Path, name: str) -> bool:
    try:
        return Path(folder, name).is_file()
    except OSError:  # a name that is too long
        return False


def _entries(section: str, found: Expansion) -> Iterator[tuple[str, Raw]]:
    """Iterate over a copy of the entries that are mappings."""
    entries = found.raw.get(section)
    if isinstance(entries, Mapping):
        for name, entry in [*entries.items()]:
            if isinstance(name, str) and isinstance(entry, Mapping):
                yield name, dict(entry)


def _expand_grids(section: str, found: Expansion) -> Raw:
    """Replace grids by their entries, and return those that written entries replace."""
    made: Raw = {}
    if not isinstance(found.raw.get(section), Mapping):
        return made
    entries = dict(found.raw[section])
    result: Raw = {}
    for name, entry in entries.items():
        is_grid = isinstance(entry, Mapping) and "for" in entry
        if not is_grid:
            result[name] = entry
            continue
        place = f"{section}.{name}"
        mistake = _wrong_grid(place, name, entry)
        if mistake:
            found.mistakes.append(mistake)
            continue
        for new_name, new_entry in _grid(name, entry):
            if new_name in made:
                found.mistakes.append(f"{place} must make new names, got {shown(new_name)} twice")
            made[new_name] = new_entry
            result[new_name] = entries.get(new_name, new_entry)
    found.raw[section] = result
    return made


def _wrong_grid(place: str, name: str, entry: Mapping[str, Any]) -> str | None:
    """Describe an error in the values of a grid, if there is one."""
    values = entry["for"]
    wanted = _PLACEHOLDER.findall(str(name))
    if not isinstance(values, Mapping):
        return f"{place}.for must be a mapping from placeholders to lists, got {shown(values)}"
    if set(wanted) != set(values) or not wanted:
        return (
            f"{place}.for must have the placeholders of the name, {sorted(set(wanted))}, "
            f"got {sorted(map(str, values))}"
        )
    for key, given in values.items():
        if not isinstance(given, list) or not given:
            return f"{place}.for.{key} must be a list of at least 1, got {shown(given)}"
    number = math.prod(map(len, values.values()))
    body = repr({key: part for key, part in entry.items() if key != "for"})
    longest = sum(max(len(str(value)) for value in given) for given in values.values())
    if number > _MOST_ENTRIES or number * (len(body) + body.count("{") * longest) > _MOST_LETTERS:
        return (
            f"{place}.for must make at most {_MOST_ENTRIES:,} entries and {_MOST_LETTERS:,} "
            f"letters, got {number:,} entries"
        )
    return None


def _grid(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, Raw]]:
    """Make the entries of a grid; the values of the last key of `for` change first."""
    values = entry["for"]
    body = {key: part for key, part in entry.items() if key != "for"}
    for combination in product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        yield _fill(name, chosen), {key: _filled(part, chosen) for key, part in body.items()}


def _filled(value: Any, chosen: Mapping[str, Any]) -> Any:
    """Replace placeholders; a text that is only a placeholder becomes the value, of its type."""
    if isinstance(value, Mapping):
        return {key: _filled(part, chosen) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, chosen) for part in value]
    if not isinstance(value, str):
        return value
    alone = _PLACEHOLDER.fullmatch(value)
    return chosen[alone[1]] if alone and alone[1] in chosen else _fill(value, chosen)


def _fill(text: str, chosen: Mapping[str, Any]) -> str:
    return _PLACEHOLDER.sub(lambda match: str(chosen.get(match[1], match[0])), text)


def _resolve_likes(section: str, from_grids: Raw, found: Expansion) -> None:
    """Write out every `like` of the entries of a section."""
    entries = dict(_entries(section, found))

    def look_up(name: str, passed: tuple[str, ...]) -> Raw | None:
        entry = entries[name]
        other = entry.pop("like", None)
        if other is None:
            return entry
        place = f"{section}.{name}.like"
        if other == name and name in from_grids:
            start: Raw | None = dict(from_grids[name])
        elif not isinstance(other, str) or other not in entries or other == name:
            others = set(entries) - {name}
            found.mistakes.append(unknown_name(f"{place} must be", others, other))
            return None
        elif other in passed:
            found.mistakes.append(f"{place} must not lead back to itself, got {shown(other)}")
            return None
        elif len(passed) > _LONGEST_CHAIN:
            found.mistakes.append(
                f"{place} must start from at most {_LONGEST_CHAIN} entries in a row, got more"
            )
            return None
        else:
            start = look_up(other, (*passed, name))
        if start is None:
            return None
        inherited = {key: value for key, value in start.items() if key not in entry}
        if other != name:
            for key in inherited:
                found.origins[f"{section}.{name}.{key}"] = f"{section}.{other}.{key}"
        entry.update(inherited)
        return entry

    for name in entries:
        if look_up(name, ()) is None:
            entries[name] = {}
    if entries:
        found.raw[section] = {**found.raw[section], **entries}


def _resolve_parts(found: Expansion) -> None:
    """Write out the named models and trainings of experiments."""
    for name, entry in _entries("experiments", found):
        for part, section in NAMED_PARTS.items():
            given = entry.get(part)
            changes = dict(given) if isinstance(given, Mapping) else {}
            other = changes.pop("like", None) if changes else given
            if not isinstance(other, str):
                continue
            place = f"experiments.{name}.{part}"
            known = found.raw.get(section)
            if not isinstance(known, Mapping) or not isinstance(known.get(other), Mapping):
                names = known if isinstance(known, Mapping) else ()
                found.mistakes.append(unknown_name(f"{place} must be a mapping or", names, other))
                continue
            if changes:
                for key in known[other]:
                    if key not in changes:
                        found.origins[f"{place}.{key}"] = f"{section}.{other}.{key}"
            else:
                found.origins[place] = f"{section}.{other}"
            entry[part] = {**known[other], **changes}
        found.raw["experiments"][name] = entry
