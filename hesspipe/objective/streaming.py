"""Batches that are read again at every pass, for data larger than memory.

The data of an objective must not change, or its products belong to different matrices. A digest of
every batch is therefore kept from the first pass, and compared at every later one. Each pass has
random numbers of its own, so that a loader that shuffles or augments is noticed at the second pass,
while the objective is built, and the caller's random state is left as it is.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from hesspipe.errors import ChangedDataError
from hesspipe.objective.batches import Batch, copied
from hesspipe.objective.data_forms import iterate_batches
from hesspipe.seeding import derive_seed

# A loader of more batches is taken for one that does not end.
_MAX_BATCHES = 1_000_000
_ADVICE = (
    "use shuffle=False, no random augmentation and no sampler that draws anew, or read the data "
    "once with stream=False"
)


class StreamedBatches(Sequence[Batch]):
    """The batches of data that can be iterated over again, one in memory at a time.

    Parameters
    ----------
    iterate : callable () -> iterator
        Begins a pass over the data.
    convert : callable (Any, int, bool) -> Batch
        Makes a batch of what the pass gives, its number, and whether its values are to be checked.

    Attributes
    ----------
    sizes : list of int
        Number of samples of each batch.

    Raises
    ------
    ValueError
        From `convert`, or if the data do not end.
    ChangedDataError
        When they are iterated over, if they are not what they were at first.
    """

    def __init__(
        self, iterate: Callable[[], Iterator[Any]], convert: Callable[[Any, int, bool], Batch]
    ) -> None:
        self._iterate, self._convert = iterate, convert
        self._changes: tuple[Callable[[Batch], Batch], ...] = ()
        self._passes = count()
        self._digests: list[bytes] = []
        sizes = []
        for number, values in enumerate(self._pass()):
            if number >= _MAX_BATCHES:
                raise ValueError(
                    f"data must end to be streamed, got more than {_MAX_BATCHES:,} batches; bound "
                    "the loader, or make its batches larger"
                )
            self._digests.append(digest(values))
            sizes.append(convert(values, number, True).num_samples)
        # Those with samples, and later those with a share of the loss.
        self._kept = [number for number, size in enumerate(sizes) if size]
        self.sizes = [size for size in sizes if size]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Batch]:
        kept = set(self._kept)
        number = -1
        for number, values in enumerate(self._pass()):
            self._require_same(number, values)
            if number in kept:
                batch = self._convert(values, number, False)
                for change in self._changes:
                    batch = change(batch)
                yield batch
        if number + 1 < len(self._digests):
            raise ChangedDataError(
                f"data must give the same batches at every pass, got {number + 1} batches instead "
                f"of {len(self._digests)}; {_ADVICE}"
            )

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        if isinstance(places, range):
            wanted = set(places)
            return [batch for place, batch in enumerate(self) if place in wanted]
        return next(islice(self, places, None))

    def mapped(self, change: Callable[[Batch], Batch]) -> StreamedBatches:
        """Return the batches with a change that each pass makes to every one of them."""
        return self._selected(self._kept, self.sizes, change)

    def described(self, facts: Sequence[Callable[[Batch], Batch] | None]) -> StreamedBatches:
        """Return the batches with one change to each, without those for which it is None."""
        pairs = zip(self._kept, facts, strict=True)
        changes = {number: change for number, change in pairs if change is not None}
        sizes = [size for size, change in zip(self.sizes, facts, strict=True) if change is not None]
        return self._selected(list(changes), sizes, lambda batch: changes[batch.number](batch))

    def _selected(
        self, kept: list[int], sizes: list[int], change: Callable[[Batch], Batch]
    ) -> StreamedBatches:
        others = object.__new__(type(self))
        others.__dict__.update(vars(self))
        others._kept, others.sizes = kept, sizes
        others._changes = (*self._changes, change)
        return others

    def _pass(self) -> Iterator[Any]:
        """Read the data with random numbers of the pass, and not the caller's."""
        state = _RandomState(derive_seed(next(self._passes), "pass over the data", 32))
        with state.in_use():
            iterator = self._iterate()
        while True:
            with state.in_use():
                try:
                    values = next(iterator)
                except StopIteration:
                    return
            yield values

    def _require_same(self, number: int, values: Any) -> None:
        if number >= len(self._digests):
            raise ChangedDataError(
                "data must give the same batches at every pass, got more than the first "
                f"{len(self._digests)}; {_ADVICE}"
            )
        if digest(values) != self._digests[number]:
            raise ChangedDataError(
                "data must give the same batches at every pass, got other values or shapes in "
                f"batch {number} than at first; {_ADVICE}"
            )


def sizes_of(batches: Sequence[Batch]) -> list[int]:
    """Return the number of samples of each batch, without a pass over streamed ones."""
    if isinstance(batches, StreamedBatches):
        return batches.sizes
    return [batch.num_samples for batch in batches]


def mapped(change: Callable[[Batch], Batch], batches: Sequence[Batch]) -> Sequence[Batch]:
    """Change every batch, of streamed ones at every pass."""
    if isinstance(batches, StreamedBatches):
        return batches.mapped(change)
    return list(map(change, batches))


def described(
    batches: Sequence[Batch], facts: Sequence[Mapping[str, Any] | None]
) -> Sequence[Batch]:
    """Set fields of each batch, and leave out those for which they are None.

    Parameters
    ----------
    batches : sequence of Batch
    facts : sequence of mapping
        Values by the names of fields, without the data themselves.
    """
    changes = [None if fact is None else partial(_replaced, fact) for fact in facts]
    if isinstance(batches, StreamedBatches):
        return batches.described(changes)
    return [
        change(batch) for batch, change in zip(batches, changes, strict=True) if change is not None
    ]


def _replaced(fact: Mapping[str, Any], batch: Batch) -> Batch:
    return replace(batch, **fact)


def stream_batches(
    data: Any, dtype: torch.dtype, device: torch.device, *, may_be_empty: bool = False
) -> StreamedBatches:
    """Prepare to read data at every pass; see `hesspipe.objective.batches.read_batches`.

    Parameters
    ----------
    data : (inputs, targets), an iterable of such pairs, or a Dataset
        Not an iterator.
    dtype : torch.dtype
    device : torch.device
    may_be_empty : bool
        Whether there may be no sample: other processes have some.

    Returns
    -------
    StreamedBatches
        After a first pass.

    Raises
    ------
    ValueError
        As from `read_batches`, or if the data can be read only once or do not end.
    """
    require_iterable_again(data)
    found = StreamedBatches(
        partial(iterate_batches, data),
        lambda pair, number, is_checked: copied(pair, number, dtype, device, is_checked=is_checked),
    )
    if not (found or may_be_empty):
        raise ValueError("data must hold at least one sample, got none")
    return found


def require_iterable_again(data: Any) -> None:
    """Raise an error for data that can be iterated over once only.

    Parameters
    ----------
    data : Any

    Raises
    ------
    ValueError
    """
    if isinstance(data, Iterator):
        raise ValueError(
            "data must give a new iterator at every pass to be streamed, got "
            f"{type(data).__name__}, which can be read only once; pass a DataLoader with "
            "shuffle=False, or an object whose __iter__ starts again"
        )


def digest(values: Any) -> bytes:
    """Hash the tensors of nested containers, with their names, types and shapes.

    Parameters
    ----------
    values : Any
        Nested dictionaries, tuples and lists of tensors and arrays; of other objects the
        `digest_parts` that they have, or how they are printed.

    Returns
    -------
    bytes

    Examples
    --------
    >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest([1]) == digest((1,))
    (True, False)
    >>> digest(torch.zeros(2)) == digest(torch.zeros(1, 2))
    False
    """
    found = hashlib.blake2b(digest_size=16)
    for part in _parts(values):
        found.update(part)
    return found.digest()


def _parts(values: Any) -> Iterator[Any]:
    """Yield what is hashed: descriptions and bytes of numbers."""
    if isinstance(values, Tensor) and (values.layout != torch.strided or values.is_nested):
        shape = "" if values.is_nested else tuple(values.shape)
        yield f"tensor of layout {values.layout} {shape};".encode()
        yield from _parts(_components(values))
    elif isinstance(values, Tensor):
        plain = values.detach().resolve_conj().resolve_neg().cpu().contiguous()
        yield f"tensor {plain.dtype} {tuple(plain.shape)};".encode()
        yield _bytes(plain)
    elif isinstance(values, np.ndarray) and values.dtype != object:
        yield f"array {values.dtype.str} {values.shape};".encode()
        yield np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    elif isinstance(values, Mapping):
        yield f"{type(values).__name__} of {len(values)};".encode()
        for key, part in values.items():
            yield f"{key!r}:".encode()
            yield from _parts(part)
    elif isinstance(values, (tuple, list)):
        yield f"{type(values).__name__} of {len(values)};".encode()
        for part in values:
            yield from _parts(part)
    elif isinstance(values, bytes):
        yield f"{len(values)} bytes;".encode()
        yield values
    elif hasattr(values, "digest_parts"):
        yield f"{type(values).__name__};".encode()
        yield from _parts(list(values.digest_parts()))
    else:
        yield f"{values!r};".encode()


def _components(tensor: Tensor) -> list[Tensor]:
    """Return the dense tensors of which a sparse or nested one consists."""
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    is_by_row = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    places = (
        [tensor.crow_indices(), tensor.col_indices()]
        if is_by_row
        else [tensor.ccol_indices(), tensor.row_indices()]
    )
    return [*places, tensor.values()]


def _bytes(tensor: Tensor) -> Any:
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
    return flat.view(torch.uint8).numpy()


class _RandomState:
    """The global random states (torch, NumPy, Python) of one pass."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        legacy = np.random.RandomState(seed)
        self._states = generator.get_state(), legacy.get_state(), random.Random(seed).getstate()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Exchange the global states with those of the pass."""
        before = _exchange(self._states)
        try:
            with _disable_current_modes():  # such as perturbations, which are not for the data
                yield
        finally:
            self._states = _exchange(before)


def _exchange(states: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])
    return before
