"""The JSON schema of config.yaml, from which editors complete and check it.

It is generated from the models of `hesspipe.config.schema`, and extended by the shorthand of
`hesspipe.config.expansion`: grids, ``like``, named models and trainings, groups and included
files. It describes the keys and types of one file; conditions on several entries are checked
when the configuration is loaded. To write it again:

    python -m hesspipe.config.json_schema
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hesspipe.config.expansion import INCLUDABLE, NAMED_PARTS, SECTIONS
from hesspipe.config.schema import Config
from hesspipe.config.types import NAME_PATTERN
from hesspipe.files import write_text

FILE = "config.schema.json"
_WIDTH = 120

Schema = dict[str, Any]

_NAME = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
_LIKE = {
    "type": "string",
    "description": "Start from the entry of this name, and change the keys given here.",
}
_FOR = {
    "type": "object",
    "description": "A grid: one entry for each combination of the values of the placeholders.",
    "minProperties": 1,
    "additionalProperties": {"type": "array", "minItems": 1},
}
_GROUP = {"type": "string", "description": "The name of one of `groups`."}
_FILE_NAME = {"type": "string", "description": "A YAML file that holds this section."}
# A value of a grid that holds a placeholder is checked when the grid is written out.
_FILLED = {
    "description": "A value with a placeholder of `for` in it.",
    "anyOf": [
        {"type": "string", "pattern": r"\{\w+\}"},
        {"type": "array", "contains": {"$ref": "#/$defs/Filled"}},
        {
            "type": "object",
            "not": {"additionalProperties": {"not": {"$ref": "#/$defs/Filled"}}},
        },
    ],
}
_GRID_NAME = r"^[a-z0-9_]*(\{\w+\}[a-z0-9_]*)+$"


def schema_text() -> str:
    """Return the content of config.schema.json."""
    return _pretty(config_schema()) + "\n"


def config_schema() -> Schema:
    """Describe config.yaml with its shorthand.

    No section is required, because a configuration may be made of several files.
    """
    schema = _without(Config.model_json_schema(), {"title", "discriminator", "default"})
    definitions, properties = schema["$defs"], schema["properties"]
    for definition in definitions.values():
        summary, _, _ = definition.get("description", "").partition("\n\n")
        definition["description"] = summary.replace("\n", " ")
        _take_groups(definition)
    for part, section in NAMED_PARTS.items():
        named = properties[section]["patternProperties"][f"^{NAME_PATTERN}$"]
        experiment = definitions["Experiment"]["properties"]
        experiment[part] = {
            "if": {"type": "string"},
            "then": _LIKE,
            "else": _written(named, schema),
        }
    sections = {name: _section(properties[name], schema) for name in SECTIONS}
    for name in INCLUDABLE:
        sections[name] = {"if": {"type": "string"}, "then": _FILE_NAME, "else": sections[name]}
    groups = {
        "type": "object",
        "description": "Names that stand for lists of experiments or random matrices.",
        "propertyNames": _NAME,
        "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hesspipe configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": properties | sections | {"groups": groups},
        "$defs": {**definitions, "Filled": _FILLED},
    }


def _without(value: Any, keys: set[str]) -> Any:
    """Copy a schema without some of its keywords, which are no names of properties."""
    if isinstance(value, Mapping):
        return {
            key: {name: _without(entry, keys) for name, entry in part.items()}
            if key in ("properties", "patternProperties", "$defs")
            else _without(part, keys)
            for key, part in value.items()
            if key not in keys
        }
    return [_without(part, keys) for part in value] if isinstance(value, list) else value


def _take_groups(definition: Schema) -> None:
    """Allow the name of a group in place of a list of names."""
    for key, values in definition.get("properties", {}).items():
        if key in ("experiments", "sources"):
            definition["properties"][key] = {"anyOf": [_GROUP, values]}
        elif key == "groups" and values.get("type") == "array":
            values["items"] = {"anyOf": [_GROUP, values["items"]]}


def _section(section: Schema, schema: Schema) -> Schema:
    """Describe a section whose entries may be grids."""
    (entry,) = section["patternProperties"].values()
    grid = _changes(entry, schema)
    values = {
        key: {"anyOf": [part, {"$ref": "#/$defs/Filled"}]}
        for key, part in grid["properties"].items()
    }
    grid |= {"required": ["for"], "properties": {**values, "for": _FOR}}
    return {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {f"^{NAME_PATTERN}$": _written(entry, schema), _GRID_NAME: grid},
    }


def _written(entry: Schema, schema: Schema) -> Schema:
    """Describe an entry that is complete, or changes another one."""
    return {"if": {"required": ["like"]}, "then": _changes(entry, schema), "else": entry}


def _changes(entry: Schema, schema: Schema) -> Schema:
    """Describe an entry of which every key may be left out."""
    variants: dict[str, dict[str, str]] = {}
    for choice in entry.get("oneOf", [entry]):
        name = choice["$ref"].rpartition("/")[2]
        for key, values in schema["$defs"][name]["properties"].items():
            place = f"{choice['$ref']}/properties/{key}"
            variants.setdefault(key, {}).setdefault(json.dumps(values), place)
    properties: Schema = {"like": _LIKE}
    for key, found in variants.items():
        references = [{"$ref": place} for place in found.values()]
        properties[key] = references[0] if len(references) == 1 else {"anyOf": references}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _pretty(value: Any, indent: str = "") -> str:
    """Write JSON with everything on one line that fits on one."""
    line = json.dumps(value)
    if len(indent + line) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_pretty(part, inner)}" for key, part in value.items()]
        start, end = "{", "}"
    else:
        parts = [_pretty(part, inner) for part in value]
        start, end = "[", "]"
    body = ",\n".join(inner + part for part in parts)
    return f"{start}\n{body}\n{indent}{end}"


if __name__ == "__main__":
    write_text(schema_text(), FILE)
