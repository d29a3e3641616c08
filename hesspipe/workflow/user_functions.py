"""Try the functions of the user that a configuration names, before any job starts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hesspipe.config.datasets import UserData
from hesspipe.config.experiments import UserModel
from hesspipe.config.schema import Config
from hesspipe.workflow.failures import place_in_project


def unusable_functions(config: Config) -> Iterator[str]:
    """Find functions that cannot be imported or called with their arguments.

    The functions of datasets and losses are not called.

    Yields
    ------
    str
        A line for each: the key, the name, the error and its line in the user's file.
    """
    for name, data in config.datasets.items():
        if isinstance(data, UserData):
            yield from _mistakes(f"datasets.{name}.function", data.function, data.arguments)
    for name, plan in config.experiments.items():
        if isinstance(plan.model, UserModel):
            key = f"experiments.{name}.model"
            model = plan.model
            yield from _mistakes(
                f"{key}.function", model.function, model.arguments, is_network=True
            )
            yield from _mistakes(f"{key}.loss", model.loss, model.loss_arguments)


def _mistakes(
    key: str, name: str, arguments: Mapping[str, Any], *, is_network: bool = False
) -> Iterator[str]:
    from hesspipe.imports import load_function, refusing_exits, require_arguments

    before = list(sys.path)
    found: Any = None
    try:
        with refusing_exits(name):
            function = load_function(name)
            require_arguments(name, function, arguments)
            found = _built(function, arguments) if is_network else None
    except Exception as error:  # a function of the user may raise anything
        place = place_in_project(error)
        yield f"{key}: {name} must work here, got {type(error).__name__}: {error}{place}"
    else:
        if is_network and not _is_module(found):
            yield f"{key}: {name} must return a torch.nn.Module, got {type(found).__name__}"
    finally:
        sys.path[:] = before


def _built(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Build a network; on the device "meta", where nothing is stored, if it can be built there."""
    import torch

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return function(**arguments)
        except Exception:  # some networks look at their initial values
            return function(**arguments)


def _is_module(found: object) -> bool:
    from torch import nn

    return isinstance(found, nn.Module)
