"""Models that compute something else than when their objective was built.

An objective holds a copy of the model, into which the parameters and the buffers of the training
are copied. What else decides the outputs is that of the time it was built: attributes such as a
temperature, layers, hooks, and which parameters are shared. Where any of these has changed, the
model as it is now is copied and evaluated too, because most such changes, of counters for example,
have no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.objective.determinism import preserved_random_state
from hesspipe.objective.objective import Objective
from hesspipe.objective.restructured import with_structure_of
from hesspipe.tolerances import rounding

_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype)
_CONTAINERS = (tuple, list, set, dict)
# The mode is that of the objective, and mixed precision of accelerate wraps `forward`.
_NOT_FOLLOWED = ("training", "forward")


class Structure:
    """What decides the outputs of a model besides parameters and buffers, as it is now.

    Parameters
    ----------
    model : nn.Module
    """

    def __init__(self, model: nn.Module) -> None:
        self._facts = dict(_facts(model))
        # So that no other object has the `id` of one of them.
        self._held = [*model.modules(), *model.parameters()]

    def changed(self, model: nn.Module) -> list[str]:
        """Describe what is not as it was, the first three."""
        now, found = dict(_facts(model)), []
        for name in {**self._facts, **now}:
            before, after = (_shown(facts, name) for facts in (self._facts, now))
            if self._facts.get(name, ...) != now.get(name, ...):
                found.append(f"{name} ({before} before, {after} now)")
        return found[:3]


def has_same_loss(objective: Objective, model: nn.Module) -> bool:
    """Whether an objective has the same loss on its first batch with the structure of a model.

    Parameters
    ----------
    objective : Objective
        At the parameters and buffers of now.
    model : nn.Module
        As it is now; it is copied.
    """
    batch = next(iter(objective.batches), None)
    if batch is None:  # other processes have data
        return True
    theta = objective.theta
    with torch.no_grad(), preserved_random_state(objective.device):
        expected = objective.batch_loss(theta, batch)
        try:
            found = with_structure_of(objective, model).batch_loss(theta, batch)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError):
            return False
    scale = float(expected.abs())
    return float((found - expected).abs()) <= rounding(scale, objective.dtype)


def _facts(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """What may decide outputs, by name."""
    places = [(name or "the model", module) for name, module in model.named_modules()]
    for place, module in places:
        yield f"the class of {place}", type(module)
        yield f"hooks of {place}", (len(module._forward_hooks), len(module._forward_pre_hooks))
    first: dict[int, str] = {}
    for name, tensor in chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    ):
        yield f"the tensor {name}", first.setdefault(id(tensor), name)
    for place, module in places:
        for key, held in vars(module).items():
            if not key.startswith("_") and key not in _NOT_FOLLOWED:
                yield from _described(f"{key} of {place}", held)


def _described(name: str, held: Any) -> Iterator[tuple[str, Any]]:
    """Describe an attribute by its value, or by which object it is."""
    if isinstance(held, _PLAIN):
        yield name, held
    elif isinstance(held, Tensor):
        yield name, (id(held), held._version)
    elif isinstance(held, _CONTAINERS):
        parts = held.items() if isinstance(held, dict) else [(None, part) for part in held]
        yield (
            name,
            [
                (repr(key), repr(part) if isinstance(part, _PLAIN) else id(part))
                for key, part in parts
            ],
        )
    else:
        yield name, id(held)


def _shown(facts: dict[str, Any], name: str) -> str:
    if name not in facts:
        return "none"
    value = facts[name]
    if isinstance(value, type):
        return value.__name__
    return repr(value) if isinstance(value, _PLAIN) else "another"
