"""Parameters that patterns of names choose."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from hesspipe.errors import nearest_names


def chosen_parameters(model: nn.Module, patterns: Sequence[str] | None) -> set[str]:
    """Select parameters by patterns, of which any name that a shared parameter has may match."""
    first = {id(value): name for name, value in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    return {first[id(every[name])] for name in _chosen_names(list(every), patterns)}


def _chosen_names(names: list[str], patterns: Sequence[str] | None) -> set[str]:
    """Select the names that match a pattern; each pattern must match at least one."""
    if patterns is None:
        return set(names)
    if isinstance(patterns, str):
        raise ValueError(f"parameters must be a list of patterns, got the string {patterns!r}")
    chosen: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                "parameters must be patterns of names, such as '0.*' or '*.bias', got "
                f"{type(pattern).__name__}; name the tensors as named_parameters() does"
            )
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(
                f"parameters must match the model's, got {pattern!r}; the nearest are "
                f"{nearest_names(pattern, names)}"
            )
        chosen.update(matches)
    return chosen
