"""A sharded model as a function of this process's part of its parameters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.objective.chosen_parameters import chosen_parameters
from hesspipe.objective.determinism import preserved_random_state, refuse_random_modules
from hesspipe.objective.flat_model import (
    NONE_VARIES,
    FlatModel,
    is_recorded_at,
    signature_of,
)
from hesspipe.objective.flattening import differentiable
from hesspipe.objective.kernels import twice_differentiable_kernels
from hesspipe.objective.model_kinds import refuse_varying_reflections, unwrapped
from hesspipe.objective.padding import constant_rows
from hesspipe.objective.pytrees import Fields, map_tensors
from hesspipe.objective.rounding import model_evaluation
from hesspipe.objective.substitutes import Norms, evaluated_exactly
from hesspipe.objective.training_steps import NoBackward
from hesspipe.objective.whole_batches import WholeBatch
from hesspipe.ranks.ranks import Ranks
from hesspipe.sharded.gathering import Gathering, parts_of
from hesspipe.sharded.layout import Piece, divided
from hesspipe.sharded.reads import DerivativesByParameters, Reads
from hesspipe.sharded.space import ShardedSpace
from hesspipe.sharded.structure import (
    WholeCopier,
    gather_where_read,
    is_dtensor,
    layout_of,
    placeholder,
    refuse_other_kinds,
    require_mesh_of_all,
)

# Messages of torch 2.13 for transformations that know no hooks of saved tensors, or no function of
# `hesspipe.sharded.gathering`.
_TRANSFORMS = r"saved tensor hooks|functorch transform|forward AD"


class ShardedModel(FlatModel):
    """A model as a function of a part of theta; the other processes must evaluate it, too.

    The caller's parameters are read once, one at a time, and this process keeps its parts of them.
    Parameters that do not vary are divided in the same way.

    Parameters
    ----------
    model : nn.Module
        Its parameters are DTensors, or whole and the same in all processes.
    dtype : torch.dtype
    patterns : sequence of str, optional
        As for `FlatModel`.
    ranks : Ranks

    Attributes
    ----------
    theta : Tensor, shape (length,)
        This process's part.
    is_varied : Tensor of bool, shape (length,)
    space : ShardedSpace
    pieces : list of Piece
        Of the parameters that vary.
    gathering : Gathering

    Raises
    ------
    ValueError
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        patterns: Sequence[str] | None,
        ranks: Ranks,
    ) -> None:
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
        model = unwrapped(model)
        refuse_random_modules(model)
        refuse_other_kinds(model)
        named = dict(model.named_parameters())
        if not named:
            raise ValueError(f"model must have parameters, got {type(model).__name__} with none")
        _require_alike(named, ranks)
        chosen = chosen_parameters(model, patterns)
        varied = [name for name in named if named[name].requires_grad and name in chosen]
        if not varied:
            raise ValueError(NONE_VARIES)
        refuse_varying_reflections(model, [named[name] for name in varied])
        self.dtype, self.device = dtype, next(iter(named.values())).device
        self.draws_numbers, self.differentiates, self.norms = False, False, Norms()
        self.function: Callable[[nn.Module, Any], Any] | None = None
        self.gathering = Gathering(ranks)
        self.names, self.shapes = varied, [named[name].shape for name in varied]
        shapes = {name: named[name].shape for name in varied}
        self.pieces = divided(shapes, ranks.rank, ranks.size)
        self.space = ShardedSpace(self.pieces, ranks)
        self.theta = self._read(named, self.pieces)
        others = {name: value.shape for name, value in named.items() if name not in shapes}
        self._constants = divided(others, ranks.rank, ranks.size)
        constants = self._read(named, self._constants)
        self._values = dict(zip(others, parts_of(constants, self._constants), strict=True))
        # After the last one is gathered, for which the other processes wait.
        _require_finite(self.theta, self.pieces)
        _require_finite(constants, self._constants)
        self._current: dict[str, Tensor] | None = None
        self._reads = Reads()
        self._adopt_structure(model, named)

    def _adopt_structure(self, model: nn.Module, named: dict[str, nn.Parameter]) -> None:
        """Copy the structure without the parameters."""
        copier = self.copier = WholeCopier(self.dtype, self.device, self.space.ranks)
        self.originals: dict[int, str] = {}
        for name, value in named.items():
            stand_in = placeholder(value, self.dtype)
            copier.replace(value, stand_in)
            if name in self.names:
                self.originals |= {id(value): name, id(stand_in): name}
        names = {id(copier.copy(value)): name for name, value in named.items()}
        self._places = {piece.name: piece for piece in [*self.pieces, *self._constants]}
        self.structure = copier.copy(model)
        self._constant_rows = constant_rows(self.structure, names)
        gather_where_read(self.structure, names, self._find, self._is_read)
        self._signature = signature_of(self.structure)
        self.is_varied = self._mask_of_varied()
        self.buffers = dict(self.structure.named_buffers())

    def _read(self, named: dict[str, nn.Parameter], pieces: Sequence[Piece]) -> Tensor:
        """Copy this process's parts of parameters, one parameter after the other."""
        length = sum(piece.length for piece in pieces)
        own = torch.empty(length, dtype=self.dtype, device=self.device)
        for piece in pieces:
            own[piece.own] = piece.part_of(_whole(named[piece.name])).to(own)
        return own

    def _mask_of_varied(self) -> Tensor:
        mask = torch.ones(self.space.length, dtype=torch.bool, device=self.device)
        for piece in self.pieces:
            if piece.name in self._constant_rows:
                width = piece.shape[1:].numel()
                low = self._constant_rows[piece.name] % piece.shape[0] * width - piece.first
                mask[piece.own][max(low, 0) : max(low + width, 0)] = False
        return mask

    def __call__(
        self, theta: Tensor | dict[str, Tensor], inputs: Tensor | Fields | WholeBatch
    ) -> Any:
        """Evaluate the model on this process's inputs, at the theta of all processes."""
        guard = preserved_random_state(self.device) if self.draws_numbers else nullcontext()
        kernels = twice_differentiable_kernels(self.device)
        with guard, model_evaluation(), kernels, self.gathering.lean():
            return evaluated_exactly(self.norms, self._called, theta, inputs)

    def _forward(
        self, theta: Tensor | dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the structure, which gathers its parameters at theta."""
        with self._at(theta), self._differentiable():
            return self.structure(*args, **kwargs)

    def _evaluated(self, theta: Tensor | dict[str, Tensor], batch: Any) -> Any:
        """Call `function` with the model at theta, by which it may differentiate."""
        assert self.function is not None
        is_recorded = is_recorded_at(theta)
        point = theta if is_recorded else map_tensors(differentiable, theta)
        with torch.enable_grad(), NoBackward(), self._at(point), self._differentiable():
            value = self.function(self.structure, batch)
        return value if is_recorded else map_tensors(torch.detach, value)

    @contextmanager
    def _at(self, theta: Tensor | dict[str, Tensor]) -> Iterator[None]:
        """Let the structure read parameters at theta."""
        outer = self._current, self._reads
        if not isinstance(theta, dict):
            theta = dict(zip(self.names, parts_of(theta, self.pieces), strict=True))
        self._current, self._reads = {**self._values, **theta}, Reads()
        try:
            yield
        finally:
            self._current, self._reads = outer

    @contextmanager
    def _differentiable(self) -> Iterator[None]:
        """Let what is evaluated differentiate by parameters, and say by what it cannot."""
        try:
            with DerivativesByParameters(self._reads):
                yield
        except RuntimeError as error:
            if not re.search(_TRANSFORMS, str(error)):
                raise
            raise ValueError(
                "a ShardedObjective must be differentiated by torch.autograd.grad(..., "
                f"create_graph=True) inside {_name(self.function or self.structure)}, got "
                "torch.func, torch.vmap or forward mode; replace it, or use an Objective of a "
                "model that is whole in one process"
            ) from error

    def _find(self, name: str) -> Tensor:
        """Gather a parameter for the structure."""
        if self._current is None:
            raise ValueError(
                f"loss_fn must use parameters in the call of the model only, got {name} outside "
                "of it; use ShardedObjective.from_batches, whose loss gets the model"
            )
        part, place = self._current[name], self._places[name]
        return self._reads.read(
            name, partial(self.gathering.whole, part, place), is_varied=part.requires_grad
        )

    def _is_read(self, name: str, value: Any) -> bool:
        """Whether a tensor is what the structure has read of a parameter."""
        return self._reads.name_of(value) == name

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Split the part of this process into those of the parameters, each (length,)."""
        return dict(zip(self.names, parts_of(theta, self.pieces), strict=True))


def _require_alike(named: dict[str, nn.Parameter], ranks: Ranks) -> None:
    """Raise an error unless all processes have the same parameters, and equal whole ones."""
    layouts: dict[str, str] = {}
    for name, value in named.items():
        if value.is_meta:
            raise ValueError(
                f"parameters must have data, got {name} on the meta device; call model.to_empty("
                "device=...) and load or initialize them"
            )
        if not value.is_floating_point():
            raise ValueError(f"parameters must be real numbers, got {name} of {value.dtype}")
        if is_dtensor(value):
            require_mesh_of_all(f"the parameter {name}", value, ranks)
    for name, value in named.items():
        layouts[name] = layout_of(value) if is_dtensor(value) else f"shape {tuple(value.shape)}"
        layouts[f"{name}.requires_grad"] = str(value.requires_grad)
    ranks.agree_on(layouts)
    ranks.agree_on(
        {
            f"the values of {name} (a whole parameter)": _digest(value.detach())
            for name, value in named.items()
            if not is_dtensor(value)
        }
    )


def _require_finite(own: Tensor, pieces: Sequence[Piece]) -> None:
    """Raise an error unless this process's parts of parameters are finite."""
    for piece in pieces:
        if not torch.isfinite(own[piece.own]).all():
            raise ValueError(f"parameters must be finite, got nan or inf in {piece.name}")


def _name(function: Any) -> str:
    """Name a user's function, which may be bound to others."""
    while isinstance(function, partial):
        function = function.args[0] if function.args else function.func
    return str(getattr(function, "__qualname__", type(function).__name__))


def _digest(values: Tensor) -> str:
    numbers = values.cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(numbers.tobytes(), digest_size=8).hexdigest()


def _whole(value: Any) -> Tensor:
    found: Tensor = value.full_tensor() if is_dtensor(value) else value
    return found.detach()
