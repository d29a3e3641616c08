"""Names of groups in the lists of figures, tables and claims, replaced by their members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hesspipe.config.messages import shown, unknown_name

# The sections whose entries name experiments and random matrices.
READERS = ("figures", "tables", "claims")
_LONGEST_CHAIN = 50  # of groups that hold each other
_LISTS = ("experiments", "sources")

Members = Mapping[str, list[str]]


def resolve_groups(raw: dict[str, Any], mistakes: list[str]) -> None:
    """Replace groups by their members, in place.

    Parameters
    ----------
    raw : dict
        The configuration; loses its section `groups`.
    mistakes : list of str
        Gets a line for each mistake.
    """
    groups = raw.pop("groups", {})
    if not isinstance(groups, Mapping):
        mistakes.append(f"groups must be a mapping, got {shown(groups)}")
        return
    owners = (raw.get("experiments"), raw.get("random_matrices"))
    known = {name for section in owners if isinstance(section, Mapping) for name in section}
    members = _members(groups, known, mistakes)
    for section in READERS:
        entries = raw.get(section)
        if isinstance(entries, Mapping):
            raw[section] = {
                name: _resolved(f"{section}.{name}", entry, members, mistakes)
                for name, entry in entries.items()
            }


def _resolved(place: str, entry: Any, members: Members, mistakes: list[str]) -> Any:
    """Copy an entry without groups."""
    if not isinstance(entry, Mapping):
        return entry
    result = dict(entry)
    for key in _LISTS:
        names = entry.get(key)
        if isinstance(names, str) and names not in members:
            start = f"{place}.{key} must be a list or a group,"
            mistakes.append(unknown_name(start, members, names))
        elif isinstance(names, str):
            result[key] = members[names]
        elif isinstance(names, list):
            result[key] = [one for name in names for one in _one_or_many(name, members)]
    if isinstance(entry.get("groups"), list):
        result["groups"] = [
            members[part] if isinstance(part, str) and part in members else part
            for part in entry["groups"]
        ]
    return result


def _one_or_many(name: Any, members: Members) -> list[Any]:
    return members[name] if isinstance(name, str) and name in members else [name]


def _members(groups: Mapping[str, Any], known: set[str], mistakes: list[str]) -> Members:
    """Write out the groups that other groups contain."""
    members: dict[str, list[str]] = {}

    def collect(group: str, passed: tuple[str, ...]) -> list[str]:
        if group in members:
            return members[group]
        names, result = groups[group], []
        for name in names if isinstance(names, list) else []:
            if name in (*passed, group):
                mistakes.append(f"groups.{group} must not contain itself, got {shown(name)}")
            elif len(passed) > _LONGEST_CHAIN:
                mistakes.append(
                    f"groups.{group} must hold at most {_LONGEST_CHAIN} groups in each other, got "
                    "more"
                )
                break
            elif isinstance(name, str) and name in groups:
                result += collect(name, (*passed, group))
            elif isinstance(name, str) and name in known:
                result.append(name)
            else:
                mistakes.append(
                    f"groups.{group} must hold names of experiments, random_matrices or groups, "
                    f"got {shown(name)}"
                )
        members[group] = [*dict.fromkeys(result)]
        if len(members[group]) < len(result):
            twice = next(name for name, number in Counter(result).items() if number > 1)
            mistakes.append(f"groups.{group} must hold each name once, got {shown(twice)} twice")
        return members[group]

    for group, names in groups.items():
        if not isinstance(names, list) or not names:
            mistakes.append(f"groups.{group} must be a list of at least 1, got {shown(names)}")
        if group in known:
            mistakes.append(
                f"groups.{group} must not have the name of an experiment or of random matrices; "
                "rename it"
            )
        collect(group, ())
    return members
