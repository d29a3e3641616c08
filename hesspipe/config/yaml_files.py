"""Reading YAML files that must hold a mapping, strictly.

YAML 1.1 reads some files without a complaint in another way than they look: of two equal keys the
last one wins, ``1:30:00`` is 5400, ``010`` is 8, and a few lines of aliases stand for more values
than memory holds. All of these are errors here, with the line.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from hesspipe.config.values import MOST_LEVELS, MOST_VALUES
from hesspipe.errors import ConfigError

_MOST_BYTES = 8 * 2**20
# Plain scalars that YAML 1.1 reads as numbers to another base than 10.
_BASES = {
    60: re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"),
    8: re.compile(r"[-+]?0[0-9_]+"),
    16: re.compile(r"[-+]?0x[0-9a-fA-F_]+"),
    2: re.compile(r"[-+]?0b[01_]+"),
}
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(_[0-9]{3})+(\.[0-9]*)?")
_WITH_UNDERSCORES = re.compile(r"[-+]?[0-9]+_[0-9_.]*|[-+]?[0-9]*\.[0-9]*_[0-9_]*")
_MOST_DIGITS = 1000
_DIGITS = re.compile(r"[-+]?(0x)?[0-9a-fA-F_.]+")
# With this key, Snakemake's reader takes the file for a template and runs the Python code in it.
_MARK = "\ufeff"  # the byte-order mark, of which the first is not part of the text
_TEMPLATE_KEY = "__use_yte__"

# The parser in C is 10 times faster; PyYAML may have been built without it.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file.

    Aliases and merge keys are allowed, within bounds; tags are not.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        One line with the path and the place, if the file cannot be read, is not YAML in UTF-8, does
        not hold a mapping, has a key twice or a number to another base than 10, is a template, or
        is too large or too deep.
    """
    text = _read_text(path)
    try:
        _check_events(text, path)
        raw = yaml.load(text, _StrictLoader)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark or error.context_mark
        if isinstance(error, yaml.scanner.ScannerError) and _is_tab(text, mark):
            what = "it is indented with a tab, which YAML does not allow; use spaces"
        raise _error(path, mark, what) from None
    except yaml.reader.ReaderError as error:  # a control character
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{path}, line {line}: it is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping, got {type(raw).__name__}")
    if _TEMPLATE_KEY in raw:
        raise ConfigError(f"{path} must not be a template, got the key {_TEMPLATE_KEY}; remove it")
    return raw


class _StrictLoader(_Parser):  # type: ignore[misc]
    """The safe loader, without keys that appear twice, and with the line of a wrong value."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct a value; some, such as the date 2026-13-01, are none."""
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            what = f"it is not valid YAML: {error}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping; the keys of a merge are not explicit ones."""
        if isinstance(node, yaml.MappingNode):
            seen: dict[tuple[str, str], Any] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (key.tag, key.value) in seen:
                    first = seen[key.tag, key.value].start_mark.line + 1
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is also in line {first}", key.start_mark
                    )
                seen[key.tag, key.value] = key
        # Before the merge, which puts the keys of other mappings into the node.
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _read_text(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path} must have at most {_MOST_BYTES:,} bytes, got more")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: the file must be UTF-8, got the byte "
            f"0x{content[error.start]:02x}; save it as UTF-8"
        ) from None
    if _MARK in text:
        line = text.count("\n", 0, text.index(_MARK)) + 1
        raise ConfigError(
            f"{path}, line {line}: a byte-order mark may only begin the file, once, got another, "
            "which editors do not show; save it as UTF-8 without one"
        )
    return text


def _is_tab(text: str, mark: Any) -> bool:
    lines = text.split("\n")[mark.line : mark.line + 1]  # none where the file ends
    return any(line[mark.column : mark.column + 1] == "\t" for line in lines)


def _check_events(text: str, path: str | Path) -> None:
    """Check depth, size with aliases written out, tags and numbers, before anything is built.

    Parsing into events uses no recursion, so that it ends for any file.
    """
    sizes: dict[str, int] = {}  # values below each anchor, its aliases written out
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the count before the node
    count = 0
    for event in _events(text):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = count - before
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise _error(path, event.start_mark, f"the alias *{event.anchor} contains itself")
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            _check_node(event, path)
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, count - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if len(open_nodes) > MOST_LEVELS:
            what = f"there must be at most {MOST_LEVELS} levels, got more"
            raise _error(path, event.start_mark, what)
        if count > MOST_VALUES:
            what = f"there must be at most {MOST_VALUES:,} values, aliases written out, got more"
            raise _error(path, event.start_mark, what)


def _events(text: str) -> Iterator[Any]:
    loader = _Parser(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _check_node(event: Any, path: str | Path) -> None:
    if event.tag is not None:
        raise _error(path, event.start_mark, f"tags are not allowed, got {event.tag!r}; remove it")
    if not isinstance(event, yaml.ScalarEvent) or event.style not in (None, ""):
        return  # a text in quotes
    text: str = event.value
    if not text or text[0] not in "-+.0123456789":
        return
    if len(text) > _MOST_DIGITS and _DIGITS.fullmatch(text):
        what = f"numbers must have at most {_MOST_DIGITS} digits, got {len(text)}"
        raise _error(path, event.start_mark, what)
    for base, form in _BASES.items():
        if form.fullmatch(text):
            raise _error(
                path,
                event.start_mark,
                f"numbers must be decimal, got {text}, which YAML reads to the base of {base}; "
                "write it in decimal, or as a text in quotes",
            )
    if _WITH_UNDERSCORES.fullmatch(text) and not _GROUPED.fullmatch(text):
        what = f"numbers must have _ between thousands only, got {text}; remove it"
        raise _error(path, event.start_mark, what)


def _error(path: str | Path, mark: Any, what: str) -> ConfigError:
    place = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
    return ConfigError(f"{place}: {' '.join(what.split())}")
