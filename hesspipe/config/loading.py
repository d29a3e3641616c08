"""Reading and checking a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hesspipe.config.checks import contradictions
from hesspipe.config.expansion import expand
from hesspipe.config.messages import explain
from hesspipe.config.references import broken_references
from hesspipe.config.schema import Config
from hesspipe.config.types import Section
from hesspipe.config.yaml_files import read_yaml
from hesspipe.errors import ConfigError

__all__ = ["ConfigError", "load_config", "validate_config"]


def validate_config(raw: Mapping[str, Any], source: str = "config.yaml") -> Config:
    """Check a configuration and convert it to typed models.

    Parameters
    ----------
    raw : mapping
        The content of a YAML file, with its names, groups and grids.
    source : str
        The file's path: for messages, and because other files are looked up next to it.

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
    expansion = expand(raw, Path(source).parent)
    lines = expansion.mistakes
    if not lines:
        try:
            config = Config.model_validate(expansion.raw)
        except ValidationError as error:
            mistakes = [dict(mistake) for mistake in error.errors()]
            lines = explain(mistakes, expansion.raw, expansion.origins, _known_keys())
        else:
            lines = [*contradictions(config), *broken_references(config)]
    if lines:
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None
    return config


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
