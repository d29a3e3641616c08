"""Inputs, targets and outputs in nested dictionaries, tuples and lists of tensors.

`Fields` holds inputs of several tensors, and has a length and slices like one tensor.
`join_outputs` and `Layout.split` convert between the outputs of a model and one vector per sample,
in terms of which the curvature of a loss is defined.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from inspect import Signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


class Fields:
    """Inputs of several tensors, each with one row per sample.

    Parameters
    ----------
    values : mapping, tuple or list
        Of tensors, or nested mappings, tuples and lists of tensors; see `call_arguments`. Values
        that are not tensors (None, a number, a string) are passed through.

    Raises
    ------
    ValueError
        If there is no tensor, or their numbers of rows differ.

    Examples
    --------
    >>> fields = Fields({"tokens": torch.ones(4, 7), "mask": torch.ones(4), "labels": None})
    >>> len(fields), fields[:2].values["tokens"].shape
    (4, torch.Size([2, 7]))
    """

    def __init__(self, values: Mapping[str, Any] | tuple[Any, ...] | list[Any]) -> None:
        if not isinstance(values, (Mapping, tuple, list)):
            raise ValueError(
                "inputs must be a tensor, or a dictionary, tuple or list of tensors, got "
                f"{type(values).__name__}; convert arrays with torch.as_tensor"
            )
        self.values = values
        lengths = {
            name: len(tensor) if tensor.ndim else 0
            for key, value in _items(values)
            for name, tensor in named_tensors(value, str(key))
        }
        if not lengths:
            raise ValueError(f"inputs must hold at least one tensor, got {type(values).__name__}")
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"inputs must all have one row per sample, got rows {lengths}; for a graph, or "
                "other data that are not divided into samples, use Objective.from_batches(model, "
                "loss, [batch]) with loss(model, batch)"
            )
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice | Tensor) -> Fields:
        return Fields(map_tensors(lambda tensor: tensor[part], self.values))


def call_arguments(
    inputs: Tensor | Fields, signature: Signature
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Decide how a model is called, by the parameters of its forward method.

    Parameters
    ----------
    inputs : Tensor or Fields
    signature : inspect.Signature
        Of the forward method.

    Returns
    -------
    args : tuple
        A tensor, or all values of a tuple or list, or a mapping that forward takes as one argument.
    kwargs : dict
        The values of a mapping, if forward has a parameter for each of its keys.
        All tensors are cloned, as the model may work in place.

    Raises
    ------
    ValueError
        If forward cannot be called with the inputs.

    Examples
    --------
    >>> inputs = Fields({"x": torch.zeros(1)})
    >>> from inspect import signature
    >>> call_arguments(inputs, signature(lambda x, mask=None: x))
    ((), {'x': tensor([0.])})
    >>> call_arguments(inputs, signature(lambda batch: batch["x"]))
    (({'x': tensor([0.])},), {})
    """
    values = map_tensors(torch.clone, inputs.values if isinstance(inputs, Fields) else (inputs,))
    if not isinstance(values, Mapping):
        if _fits(signature, *values):
            return tuple(values), {}
        found, advice = (
            f"{len(values)} of them",
            "write a tuple or list that is one argument as ([...],)",
        )
    else:
        has_names = all(isinstance(key, str) for key in values)
        if has_names and _fits(signature, **values):
            return (), dict(values)
        if _fits(signature, values):
            return (values,), {}
        found = f"the names {', '.join(map(str, values))}"
        advice = "use its names; write a dictionary that is one argument as ({...},)"
    raise ValueError(f"inputs must fit the model's forward{signature}, got {found}; {advice}")


def _fits(signature: Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def cast(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Copy a tensor; floating-point numbers to a dtype, complex ones to that of its precision.

    Examples
    --------
    >>> cast(torch.ones(1, dtype=torch.complex64), torch.float64, torch.device("cpu")).dtype
    torch.complex128
    """
    kind = tensor.dtype
    if tensor.is_complex():
        kind = dtype.to_complex()
    elif tensor.is_floating_point():
        kind = dtype
    return tensor.to(device, kind, copy=True)


def map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    """Apply a function to everything in nested dictionaries, tuples and lists."""
    if isinstance(values, Mapping):
        return _rebuilt(values, [map_leaves(function, value) for value in values.values()])
    if isinstance(values, (tuple, list)) and not isinstance(values, (PackedSequence, torch.Size)):
        return _rebuilt(values, [map_leaves(function, value) for value in values])
    return function(values)


def map_tensors(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Apply a function to every tensor in nested dictionaries, tuples and lists."""
    return map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, values)


def named_tensors(values: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the tensors in nested dictionaries, tuples and lists, with their places."""
    if isinstance(values, Tensor):
        yield name, values
    elif isinstance(values, (Mapping, tuple, list)):
        for key, value in _items(values):
            yield from named_tensors(value, f"{name}[{key!r}]")


def _items(values: Mapping[Any, Any] | tuple[Any, ...] | list[Any]) -> Iterator[tuple[Any, Any]]:
    yield from values.items() if isinstance(values, Mapping) else enumerate(values)


def _rebuilt(values: Any, parts: list[Any]) -> Any:
    """Make a container of the same type with other entries."""
    if isinstance(values, Mapping):
        pairs = dict(zip(values, parts, strict=True))
        if type(values) is dict or not isinstance(values, MutableMapping):
            return pairs
        rebuilt = copy.copy(values)  # subclasses, such as the outputs of transformers
        for key, part in pairs.items():
            rebuilt[key] = part
        return rebuilt
    if hasattr(values, "_fields"):  # a named tuple
        return type(values)(*parts)
    return type(values)(parts)


@dataclass(frozen=True)
class _Withheld:
    """Stands for an output that is no tensor of floating point, such as a cache of attention.

    The loss may pass it by, but not use it: it is not among the outputs that define G.
    """

    name: str
    kind: str


@dataclass(frozen=True)
class Layout:
    """The correspondence between the outputs of a model and one vector per sample.

    Attributes
    ----------
    template : Any
        Nested containers with an index in place of each tensor.
    shapes : tuple of torch.Size
        Shapes of the tensors without the sample dimension.
    """

    template: Any
    shapes: tuple[torch.Size, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the outputs already are one vector per sample."""
        return self.template == 0 and len(self.shapes[0]) == 1

    def split(self, rows: Tensor) -> Any:
        """Convert vectors (n, C) to outputs as the model returns them."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = [
            part.reshape(len(rows), *shape)
            for part, shape in zip(rows.split(sizes, dim=1), self.shapes, strict=True)
        ]
        return _filled(self.template, parts)


@dataclass(frozen=True)
class WholeLayout:
    """The correspondence between all outputs for a batch and one vector.

    Attributes
    ----------
    template : Any
        Nested containers with an index in place of each tensor.
    shapes : tuple of torch.Size
    """

    template: Any
    shapes: tuple[torch.Size, ...]

    @property
    def withheld(self) -> list[str]:
        """Names and types of the outputs that are not part of the vector."""
        return _withheld(self.template)

    def split(self, vector: Tensor) -> Any:
        """Convert a vector (K,) to outputs as the model returns them."""
        parts = vector.split([shape.numel() for shape in self.shapes])
        shaped = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return _filled(self.template, shaped)


def _withheld(template: Any) -> list[str]:
    if isinstance(template, (Mapping, tuple, list)):
        return [name for _, part in _items(template) for name in _withheld(part)]
    is_withheld = isinstance(template, _Withheld)
    return [f"{template.name} ({template.kind})"] if is_withheld else []


def join_whole(outputs: Any) -> tuple[Tensor, WholeLayout]:
    """Concatenate the outputs of a model for a batch, whatever their rows are, to one vector.

    Parameters
    ----------
    outputs : Tensor, or nested dictionaries, tuples and lists of tensors
        Floating-point; None is allowed, and others in a container are withheld from the loss.

    Returns
    -------
    vector : Tensor, shape (K,)
    layout : WholeLayout

    Raises
    ------
    ValueError
        If an output is not such a tensor.
    """
    template, tensors = _collected(outputs, None)
    vector = torch.cat([tensor.reshape(-1) for tensor in tensors])
    return vector, WholeLayout(template, tuple(tensor.shape for tensor in tensors))


def _collected(outputs: Any, num_samples: int | None) -> tuple[Any, list[Tensor]]:
    """The template of the outputs, and their tensors; at least one."""
    tensors: list[Tensor] = []
    template = _template(outputs, "outputs", num_samples, tensors)
    if not tensors:
        raise ValueError(f"model must return tensors, got {type(outputs).__name__} without any")
    return template, tensors


def join_outputs(outputs: Any, num_samples: int) -> tuple[Tensor, Layout]:
    """Concatenate the outputs of a model to one vector per sample.

    Parameters
    ----------
    outputs : Tensor, or nested dictionaries, tuples and lists of tensors
        Floating-point, each with one row per sample; None is allowed.
    num_samples : int

    Returns
    -------
    rows : Tensor, shape (num_samples, C)
    layout : Layout

    Raises
    ------
    ValueError
        If an output is not such a tensor.
    """
    template, tensors = _collected(outputs, num_samples)
    layout = Layout(template, tuple(tensor.shape[1:] for tensor in tensors))
    if layout.is_plain:
        return tensors[0], layout
    rows = [tensor.reshape(num_samples, -1) for tensor in tensors]
    return (rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)), layout


def _template(value: Any, name: str, num_samples: int | None, tensors: list[Tensor]) -> Any:
    if value is None:
        return None
    if isinstance(value, (Mapping, tuple, list)):
        parts = [
            _template(part, f"{name}[{key!r}]", num_samples, tensors) for key, part in _items(value)
        ]
        return _rebuilt(value, parts)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        what = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
        if name != "outputs" and not isinstance(value, Tensor):
            return _Withheld(name, what)
        raise ValueError(f"{name} must be a tensor of floating point, got {what}")
    if num_samples is not None and (value.ndim == 0 or len(value) != num_samples):
        raise ValueError(
            f"{name} must have one row per sample ({num_samples}), got shape {tuple(value.shape)}"
        )
    tensors.append(value)
    return len(tensors) - 1


def _filled(template: Any, parts: list[Tensor]) -> Any:
    if template is None or isinstance(template, _Withheld):
        return template
    if isinstance(template, int):
        return parts[template]
    if isinstance(template, Mapping):
        return _rebuilt(template, [_filled(value, parts) for value in template.values()])
    return _rebuilt(template, [_filled(value, parts) for value in template])
