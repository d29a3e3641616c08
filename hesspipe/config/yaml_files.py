"""Reading YAML files that must hold a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hesspipe.errors import ConfigError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file.

    Raises
    ------
    ConfigError
        If the file is not YAML, or does not hold a mapping.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping, got {type(raw).__name__}")
    return raw
