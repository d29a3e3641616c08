"""Save and resume a search for eigenpairs, with a check that the problem is the same."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesspipe.errors import DamagedFileError, ForeignStateError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.linalg.krylov import LEAST_NUMBERS, KrylovBasis
from hesspipe.linalg.operator import random_unit
from hesspipe.seeding import generator
from hesspipe.tolerances import agrees, rounding
from hesspipe.unfinished import put_aside, remove_leftovers_of, remove_state

_LOG = logging.getLogger(__name__)
_TENSORS = (
    "vectors", "projected", "watched", "hidden", "components", "couplings", "rest", "scalars",
    "image",
)  # fmt: skip
# Multiples of the tolerance that the relation of a basis may be off by: the residuals of locked
# pairs, and those of a few that were taken as converged too early.
_NUM_TOLERANCES = 10.0


class _UnusableError(Exception):
    """A file is no state of a search, or one that no search can have left."""


def _exponent(text: str) -> int | None:
    return None if text == "None" else int(text)


class SearchState:
    """A file with the basis of a search.

    When it is read, the settings must be the same, which is checked by a hash, and so must the
    operator, which is checked by its product with a fixed random vector. The product depends on
    the parameters, the data and the loss. Another product, with a random vector of the basis,
    checks that the basis is one of this operator. These two are not counted, so that a resumed
    search reports as many products as one that was not interrupted.

    Parameters
    ----------
    path : str or Path
        Ends in .safetensors; locked.
    basis : KrylovBasis
    settings : mapping
        JSON-like: the other arguments that the search depends on, the tolerance among them.
    """

    def __init__(self, path: str | Path, basis: KrylovBasis, settings: Mapping[str, Any]) -> None:
        self.path, self.basis, self.tolerance = Path(path), basis, float(settings["tolerance"])
        product = basis.product
        description = {
            "dim": product.dim,
            "dtype": str(product.dtype),
            "name": product.name,
            "capacity": basis.capacity,
            "seed": basis.seed,
            **settings,
        }
        self.key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        self.image = product.multiply(random_unit(product, generator(0, "operator's identity")))
        basis.num_products += 1

    def save(self) -> None:
        """Write the basis, atomically."""
        tensors, about = self.contents()
        write_tensors(tensors, self.path, about)

    def contents(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return what is saved: tensors, and numbers as text."""
        tensors, numbers = self.basis.state()
        about = {
            "key": self.key,
            "exponent": str(self.basis.scaling.exponent),
            "capacity": str(self.basis.capacity),
            **numbers,
        }
        return tensors | {"image": self.image}, about

    def remove(self) -> None:
        """Remove the file."""
        remove_state(self.path)

    def load(self) -> None:
        """Replace the basis by the saved one, if the file exists.

        A file that is damaged, no search, or one of another version is renamed and named in the
        log, and the search starts again.

        Raises
        ------
        ForeignStateError
            If the file belongs to another problem.
        """
        remove_leftovers_of(self.path)
        if not self.path.exists():
            return
        reason: str | None = "it is no file"
        if self.path.is_file():
            try:
                reason = self.restore(*read_tensors(self.path))
            except DamagedFileError:
                reason = "it is damaged, or of another version"
        if reason is not None:
            start_again(self.path, reason)

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str | None:
        """Replace the basis when everything has been checked; else say why it cannot be."""
        try:
            self._restore(tensors, metadata)
        except _UnusableError as error:
            return str(error)
        return None

    def reason_against(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str | None:
        """Say why what was read can be no state of this search; None if it may be one."""
        try:
            self._parsed(tensors, metadata)
        except _UnusableError as error:
            return str(error)
        return None

    def _restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        exponent, numbers = self._parsed(tensors, metadata)
        scaling = self.basis.scaling
        # Rounding may put two images on either side of a power of two.
        doublings = (exponent or 0) - (scaling.exponent or 0)
        saved = tensors["image"].to(self.image)
        is_near = abs(doublings) <= 1 and self._is_close(saved * 2.0**doublings)
        if not is_near or (exponent is None) != (scaling.exponent is None):
            raise ForeignStateError(self._foreign("another operator (parameters, data or loss)"))
        self._check_basis(tensors, numbers, 2.0**doublings)
        scaling.exponent, self.image = exponent, saved
        self.basis.load(tensors, metadata)

    def _parsed(
        self, tensors: dict[str, Tensor], metadata: dict[str, str]
    ) -> tuple[int | None, dict[str, int]]:
        """Check that all is there, in shapes that fit; return the exponent and the numbers."""
        try:
            if metadata["key"] != self.key:
                raise ForeignStateError(self._foreign("other settings"))
            exponent = _exponent(metadata["exponent"])
            numbers = {name: int(metadata[name]) for name in LEAST_NUMBERS}
            shapes = {name: tuple(tensors[name].shape) for name in _TENSORS}
        except ForeignStateError:
            raise
        except KeyError as error:
            raise _UnusableError(f"it lacks {error}; another version may have written it") from None
        except ValueError as error:
            raise _UnusableError(error) from None
        size, length, capacity = numbers["size"], self.basis.space.length, self.basis.capacity
        is_in_range = all(numbers[name] >= least for name, least in LEAST_NUMBERS.items())
        if not (is_in_range and numbers["num_locked"] <= size <= capacity):
            raise _UnusableError(f"its numbers cannot be {numbers}")
        num_watched = shapes["watched"][0] if shapes["watched"] else 0
        num_held = numbers["num_locked"] if shapes["couplings"] != (0,) else 0
        expected = {
            "vectors": (size + 1, length), "projected": (size, size), "watched": (num_watched,),
            "hidden": (num_watched,), "components": (num_watched, capacity + 1), "scalars": (3,),
            "couplings": (num_held,), "rest": (min(1, num_held), length), "image": (length,),
        }  # fmt: skip
        if shapes != expected:
            raise _UnusableError(f"its tensors have shapes {shapes}, not {expected}")
        return exponent, numbers

    def _check_basis(
        self, tensors: dict[str, Tensor], numbers: dict[str, int], unit: float
    ) -> None:
        """Refuse a basis that is not orthonormal, or not one of this operator.

        Of A V^T = V^T T + beta r e_last^T only a random combination of columns is checked, which
        needs one product. The residuals of locked vectors are added to it.
        """
        size = numbers["size"]
        vectors = tensors["vectors"].to(self.basis.vectors)
        space = self.basis.space
        gram = space.inner(vectors, vectors.T)  # (size + 1, size + 1)
        if not agrees(
            gram, torch.eye(size + 1, dtype=vectors.dtype, device="cpu").to(vectors), size + 1.0
        ):
            raise _UnusableError("its basis is not orthonormal")
        projected = tensors["projected"].to(vectors)
        random = torch.randn(
            size, generator=generator(0, "basis check"), dtype=torch.float64, device="cpu"
        )
        weights = (random / random.norm()).to(vectors)  # (size,)
        image = self.basis.product.multiply(weights @ vectors[:size]) / unit  # (P,)
        rest = image - (projected @ weights) @ vectors[:size]
        if len(couplings := tensors["couplings"].to(vectors)):
            part = vectors[numbers["num_locked"] : size]  # the products with these are in T
            outside = tensors["rest"][0].to(vectors)
            outside = outside - space.inner(part, outside) @ part
            rest -= couplings @ weights[: len(couplings)] * outside
        rest -= space.inner(vectors[size], rest) * vectors[size]
        scale = float(tensors["scalars"][1])
        allowed = _NUM_TOLERANCES * self.tolerance * scale + rounding(scale, vectors.dtype)
        if not float(space.norm(rest)) <= allowed * math.sqrt(size):
            raise _UnusableError("its basis is not one of this operator")

    def _is_close(self, image: Tensor) -> bool:
        # Another number of threads may add samples in another order.
        space = self.basis.space
        allowed = rounding(float(space.norm(self.image)), image.dtype)
        return bool(space.norm(image - self.image) <= allowed)

    def _foreign(self, of: str) -> str:
        return (
            f"state must be a file of the same search, got {self.path} with {of}; pass another "
            "path, or delete the file to start again"
        )


def saved_capacity(path: Path) -> int:
    """Return the number of vectors of the basis of a saved search; 0 if it is not known."""
    from safetensors import SafetensorError, safe_open

    try:
        # Not by `read_tensors`, which reads all of it: the search does, and checks it.
        with safe_open(path, framework="pt") as file:
            return int(json.loads(file.metadata()["about"])["facts"]["capacity"])
    except (OSError, SafetensorError, TypeError, KeyError, ValueError):
        return 0


def start_again(path: Path, reason: object) -> None:
    """Put the state of a search aside that cannot be resumed, and say so in the log."""
    _LOG.warning(
        "the state of a search, %s, cannot be resumed (%s) and is now %s; the search starts again",
        path, reason, put_aside(path),
    )  # fmt: skip
