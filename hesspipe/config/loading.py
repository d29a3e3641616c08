"""Reading and checking a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hesspipe.config.checks import contradictions, unmatched_groups
from hesspipe.config.expansion import expand
from hesspipe.config.messages import explain
from hesspipe.config.references import broken_references
from hesspipe.config.schema import Config
from hesspipe.config.sizes import too_much
from hesspipe.config.types import Section
from hesspipe.config.values import impossible_values
from hesspipe.config.yaml_files import read_yaml
from hesspipe.errors import ConfigError

__all__ = ["ConfigError", "load_config", "validate_config"]

_MOST_LINES = 100
_LONGEST_LINE = 1000


def validate_config(
    raw: Mapping[str, Any], source: str = "config.yaml", folder: Path | None = None
) -> Config:
    """Check a configuration and convert it to typed models.

    Parameters
    ----------
    raw : mapping
        The content of a YAML file, with its names, groups and grids.
    source : str
        The file's path, for messages.
    folder : Path, optional
        Where files that it names are looked up; by default next to it.

    Returns
    -------
    Config
        Without shorthand.

    Raises
    ------
    ConfigError
        With one line for each error: the key, the condition, and the value.

    Examples
    --------
    >>> validate_config({})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    hesspipe.errors.ConfigError: config.yaml: datasets is missing...
    """
    if lines := [*impossible_values(raw)]:
        raise _refusal(source, lines)
    expansion = expand(raw, folder or Path(source).parent)
    if expansion.mistakes:
        raise _refusal(source, expansion.mistakes)
    try:
        config = Config.model_validate(expansion.raw)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        lines = explain(mistakes, expansion.raw, expansion.origins, _known_keys())
        raise _refusal(source, lines) from None
    # Each presupposes that those before it found nothing: what is too much is never listed, and
    # a user's network is only built for a configuration that is right otherwise.
    for checks in ((too_much,), (contradictions, broken_references), (unmatched_groups,)):
        if lines := [line for check in checks for line in check(config)]:
            raise _refusal(source, lines)
    return config


def _refusal(source: str, lines: Sequence[str]) -> ConfigError:
    """The error, with the first lines if there are very many or long ones."""
    shortened = [
        line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."
        for line in lines[:_MOST_LINES]
    ]
    if len(lines) > _MOST_LINES:
        shortened.append(f"{len(lines) - _MOST_LINES} more errors")
    return ConfigError("\n".join(f"{source}: {line}" for line in shortened))


def load_config(path_to_config: str | Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError
        If the file is not YAML, not a mapping, or has mistakes (see `validate_config`).
    """
    return validate_config(read_yaml(path_to_config), str(path_to_config))


def _known_keys(section: type[BaseModel] = Section) -> set[str]:
    """Every key that some section of the file may have."""
    keys = {"groups", "like", "for", *section.model_fields}
    return keys.union(*(_known_keys(part) for part in section.__subclasses__()))
