"""A model as a function of one flat parameter vector.

The model itself is never changed: its structure is copied without the parameters. Kernels without a
second derivative are disabled.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.objective.chosen_parameters import chosen_parameters
from hesspipe.objective.copies import Copier
from hesspipe.objective.determinism import preserved_random_state, refuse_random_modules
from hesspipe.objective.flattening import differentiable, flatten, leaves, unflatten
from hesspipe.objective.kernels import twice_differentiable_kernels
from hesspipe.objective.model_kinds import refuse_varying_reflections, require_usable, unwrapped
from hesspipe.objective.padding import (
    constant_rows,
    held_rows,
    lookups,
    lookups_apart,
    used_parts,
)
from hesspipe.objective.pieces import random_directions
from hesspipe.objective.pytrees import Fields, call_arguments, cast, map_tensors
from hesspipe.objective.rounding import model_evaluation
from hesspipe.objective.substitutes import Norms, evaluated_exactly
from hesspipe.objective.training_steps import NoBackward
from hesspipe.objective.whole_batches import WholeBatch
from hesspipe.seeding import generator

# Relative size of a step away from theta: small, so that the loss is still defined.
RELATIVE_STEP = 1e-3
# Of the error where something is differentiated while nothing is recorded.
_NOTHING_RECORDED = "does not require grad"
NONE_VARIES = (
    "at least one parameter must be varied, got only frozen ones; requires_grad_(True) lets the "
    "parameters of a module vary"
)


class FlatModel:
    """A model as a function of one flat vector of its parameters that vary.

    The other parameters are constants, like buffers: they stay in the copy of the structure.

    Parameters
    ----------
    model : nn.Module
        Its structure is copied, so that later changes of its mode or attributes have no effect.
    dtype : torch.dtype
        Parameters and buffers are converted to it.
    patterns : sequence of str, optional
        Names of the parameters to vary, with the wildcards of `fnmatch`; by default, and at most,
        those that require a gradient.

    Attributes
    ----------
    theta : Tensor, shape (P,)
    names, shapes : list
        Of the parameters that vary, in the order of `model.named_parameters()`.
    is_varied : Tensor of bool, shape (P,)
        False for the row `padding_idx` of an embedding whose weight has no other use.
    buffers : dict of Tensor
    originals : dict
        Names of the varied parameters by the `id` of the caller's tensors and of their copies in
        `structure`, which the loss must not depend on.
    draws_numbers : bool
        Whether evaluations draw random numbers, so that the global state must be restored.
    differentiates : bool
        Whether the model needs a graph inside, as found where there was none.
    function : callable (model, batch) -> Any, optional
        Evaluates the model on a `WholeBatch`.
    norms : Norms
        Shared with the loss.
    copier : Copier
        Of the model; deleted by `copied`.

    Raises
    ------
    ValueError
    """

    def __init__(
        self, model: nn.Module, dtype: torch.dtype, patterns: Sequence[str] | None
    ) -> None:
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
        model = unwrapped(model)
        refuse_random_modules(model)
        require_usable(model)
        named = dict(model.named_parameters())
        self.dtype, self.norms = dtype, Norms()
        self.draws_numbers, self.differentiates = False, False
        self.function: Callable[[nn.Module, Any], Any] | None = None
        self.device = next(iter(named.values())).device
        chosen = chosen_parameters(model, patterns)
        varied = {key: part for key, part in named.items() if part.requires_grad and key in chosen}
        if not varied:
            raise ValueError(NONE_VARIES)
        refuse_varying_reflections(model, varied.values())
        self.names, self.shapes = list(varied), [value.shape for value in varied.values()]
        copier = self.copier = Copier(dtype, self.device)
        self.originals: dict[int, str] = {}
        self.theta = self._flattened(varied)
        # The copies of the parameters share its memory.
        parts = unflatten(self.theta, dict(zip(self.names, self.shapes, strict=True)))
        for name, value in named.items():
            part = parts[name] if name in varied else cast(value.detach(), dtype, self.device)
            copier.replace(value, nn.Parameter(part, requires_grad=name in varied))
            if name in varied:
                self.originals |= {id(value): name, id(copier.copy(value)): name}
        self.structure = copier.copy(model)
        self._constant_rows = constant_rows(
            self.structure, {id(copier.copy(value)): name for name, value in varied.items()}
        )
        self._signature = signature_of(self.structure)
        self._is_tied = has_two_names(self.structure)
        self.is_varied = self._mask_of_varied()
        self.buffers = {
            name: buffer
            for name, buffer in self.structure.named_buffers()
            if id(buffer) not in self.originals and not isinstance(buffer, nn.Parameter)
        }

    def _flattened(self, varied: dict[str, nn.Parameter]) -> Tensor:
        """Copy parameters to one vector (P,), converted."""
        sizes = [value.numel() for value in varied.values()]
        theta = torch.empty(sum(sizes), dtype=self.dtype, device=self.device)
        for part, value in zip(theta.split(sizes), varied.values(), strict=True):
            part.copy_(value.detach().reshape(-1))
        return theta

    def _mask_of_varied(self) -> Tensor:
        masks = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            mask = torch.ones(shape, dtype=torch.bool, device=self.device)
            if name in self._constant_rows:
                mask[self._constant_rows[name]] = False
            masks.append(mask.reshape(-1))
        return torch.cat(masks)

    def copied(self, *functions: Any) -> tuple[Any, ...]:
        """Copy a loss and other functions once, with their tensors converted.

        Later changes of them, their settings and their tensors then have no effect. What they share
        with the model is shared by the copies; parameters of the model are those in `originals`.

        Raises
        ------
        ValueError
            If one cannot be called, and is not None.
        """
        for function in functions:
            if function is not None and not callable(function):
                raise ValueError(
                    "loss_fn and denominator must be functions of (outputs, targets), got "
                    f"{type(function).__name__}; pass one of torch, e.g. nn.MSELoss()"
                )
            if isinstance(function, type):
                name = function.__name__
                raise ValueError(
                    "loss_fn and denominator must be functions of (outputs, targets), got the "
                    f"class {name}; build it first: {name}()"
                )
        copies = tuple(map(self.copier.copy, functions))
        del self.copier  # keeps the originals alive
        return copies

    def __call__(
        self, theta: Tensor | dict[str, Tensor], inputs: Tensor | Fields | WholeBatch
    ) -> Any:
        """Evaluate the model, at a vector or at `leaves`; checkpoints are plain calls."""
        guard = preserved_random_state(self.device) if self.draws_numbers else nullcontext()
        kernels = twice_differentiable_kernels(self.device)
        with guard, model_evaluation(), kernels:
            if not self.differentiates:
                try:
                    return evaluated_exactly(self.norms, self._called, theta, inputs)
                except RuntimeError as error:
                    if is_recorded_at(theta) or _NOTHING_RECORDED not in str(error):
                        raise
                self.differentiates = True
            return self._recorded(theta, inputs)

    def _recorded(
        self, theta: Tensor | dict[str, Tensor], inputs: Tensor | Fields | WholeBatch
    ) -> Any:
        """Evaluate a model that differentiates inside, whether or not the caller does."""
        if is_recorded_at(theta):
            return evaluated_exactly(self.norms, self._called, theta, inputs)
        with torch.enable_grad():
            point = map_tensors(differentiable, theta)
            return map_tensors(
                torch.detach, evaluated_exactly(self.norms, self._called, point, inputs)
            )

    def _called(
        self, theta: Tensor | dict[str, Tensor], inputs: Tensor | Fields | WholeBatch
    ) -> Any:
        if isinstance(inputs, WholeBatch):
            return self._evaluated(theta, inputs.copy())
        args, kwargs = call_arguments(inputs, self._signature)
        return self._forward(theta, args, kwargs)

    def _forward(
        self, theta: Tensor | dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the structure with its parameters at theta."""
        state = self._state(theta)
        return torch.func.functional_call(
            self.structure, state, args, kwargs, tie_weights=self._is_tied
        )

    def _state(self, theta: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        parts = theta if isinstance(theta, dict) else self.unflatten(theta)
        return self.buffers | parts

    def _evaluated(self, theta: Tensor | dict[str, Tensor], batch: Any) -> Any:
        """Call `function` with a model whose parameters are functions of theta.

        It may differentiate by them, or by entries of the batch, whether or not the caller does.
        """
        is_recorded = is_recorded_at(theta)
        with torch.enable_grad(), NoBackward():
            point = theta if is_recorded else map_tensors(differentiable, theta)
            state = self._state(point)
            value = torch.func.functional_call(
                _Evaluation(self.structure),
                {f"model.{name}": part for name, part in state.items()},
                (self.function, batch),
            )
        return value if is_recorded else map_tensors(torch.detach, value)

    def another_point(self) -> Tensor:
        """Draw a random point (P,) near theta, with all varied parameters changed.

        There, initial weights of zero hide nothing, and no unit lies exactly on a kink.
        """
        draw = generator(0, "another point")
        (change,) = random_directions(self.theta, self.is_varied, draw, 1)
        return change.mul_(RELATIVE_STEP).add_(self.theta)

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Split a flat vector into the named parameters that vary."""
        return unflatten(theta, dict(zip(self.names, self.shapes, strict=True)))

    def leaves(self, theta: Tensor) -> dict[str, Tensor]:
        """Split a flat vector into parameters by which the model can be differentiated."""
        return leaves(self.unflatten(theta))

    def note_uses_of_padding(self, evaluate: Callable[[Tensor], Tensor]) -> None:
        """Let rows of padding vary of which a loss depends on more than their lookup.

        Parameters
        ----------
        evaluate : callable (theta) -> scalar Tensor
            The loss on a batch.
        """
        if not self._constant_rows:
            return
        with torch.enable_grad(), lookups_apart(self.structure):
            used = used_parts(evaluate(self.theta.detach().requires_grad_()))
        self.let_padding_vary(self.names[place] for place in used)

    @property
    def names_with_padding(self) -> list[str]:
        """Names of the parameters with constant rows."""
        return list(self._constant_rows)

    def let_padding_vary(self, names: Iterable[str]) -> None:
        """Let the constant rows of some parameters vary."""
        for name in names:
            self._constant_rows.pop(name, None)
        self.is_varied.copy_(self._mask_of_varied())

    @contextmanager
    def padding_held_at(self, point: Callable[[], Tensor]) -> Iterator[None]:
        """Let lookups return the rows of padding at one point, wherever the model is evaluated.

        The function of theta is then the one that is differentiated.

        Parameters
        ----------
        point : callable () -> Tensor, shape (P,)
            Called only where there are such lookups; nothing keeps it.
        """

        def rows(model: nn.Module, _: None) -> list[Tensor]:
            return [one.weight[one.padding_idx].detach().clone() for one in lookups(model)]

        if not lookups(self.structure):
            yield
            return
        state = {f"model.{name}": part for name, part in self._state(point().detach()).items()}
        found = torch.func.functional_call(_Evaluation(self.structure), state, (rows, None))
        del state
        with held_rows(self.structure, found):
            yield

    def fresh_copy(self) -> FlatModel:
        """Copy the model with a structure of its own, as it is before its first call."""
        fresh, copier = copy.copy(self), Copier(self.dtype, self.device)
        for value in self.structure.parameters():  # which no evaluation changes
            copier.replace(value, value)
        fresh.structure = copier.copy(self.structure)
        return fresh

    def restricted_to(self, names: Collection[str]) -> FlatModel:
        """Copy the model with all parameters but those with the given names as constants."""
        part, named = copy.copy(self), self.unflatten(self.theta.detach())
        kept = [index for index, name in enumerate(self.names) if name in names]
        part.names = [self.names[index] for index in kept]
        part.shapes = [self.shapes[index] for index in kept]
        part.theta = flatten({name: named[name] for name in part.names})
        part.buffers = self.buffers | {
            name: values for name, values in named.items() if name not in names
        }
        masks = self.is_varied.split([shape.numel() for shape in self.shapes])
        part.is_varied = torch.cat([masks[index] for index in kept])
        return part

    def at(self, theta: Tensor, constants: Mapping[str, Tensor]) -> FlatModel:
        """Copy the model with other parameters, buffers and constant parameters."""
        moved = copy.copy(self)
        moved.theta, moved.buffers = theta, {**self.buffers, **constants}
        return moved

    def name_of(self, index: int) -> str:
        """Name the parameter that holds entry `index` of theta."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            if index < shape.numel():
                return name
            index -= shape.numel()
        raise IndexError(f"theta has {len(self.theta)} entries")


def has_two_names(model: nn.Module) -> bool:
    """Whether a tensor of a model has several names."""
    tensors = chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    found = [id(tensor) for _, tensor in tensors]
    return len(set(found)) < len(found)


def is_recorded_at(theta: Tensor | dict[str, Tensor]) -> bool:
    """Whether what is evaluated at a vector, or at leaves, has a graph."""
    first = next(iter(theta.values())) if isinstance(theta, dict) else theta
    return torch.is_grad_enabled() and first.requires_grad


class _Evaluation(nn.Module):
    """Hands a model to a function, while `functional_call` gives it other parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        return function(self.model, batch)


def signature_of(model: nn.Module) -> inspect.Signature:
    """Return the arguments that forward takes; any, if Python does not know."""
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):  # a function in C
        return inspect.signature(lambda *args, **kwargs: None)
