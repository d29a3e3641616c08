"""Save and resume a search for eigenpairs, with a check that the problem is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hesspipe.errors import DamagedFileError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import random_unit
from hesspipe.seeding import generator
from hesspipe.tolerances import agrees


def _exponent(text: str) -> int | None:
    return None if text == "None" else int(text)


class SearchState:
    """A file with the basis of a search.

    When it is read, the settings must be the same, which is checked by a hash, and so must the
    operator, which is checked by its product with a fixed random vector. The product depends on
    the parameters, the data and the loss.

    Parameters
    ----------
    path : str or Path
        Ends in .safetensors. Each of several processes needs another one.
    basis : KrylovBasis
    settings : mapping
        JSON-like: the other arguments that the search depends on.
    """

    def __init__(
        self, path: str | Path, basis: KrylovBasis, settings: Mapping[str, object]
    ) -> None:
        self.path, self.basis = Path(path), basis
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
        tensors, numbers = self.basis.state()
        about = {"key": self.key, "exponent": str(self.basis.scaling.exponent), **numbers}
        write_tensors(tensors | {"image": self.image}, self.path, about)

    def load(self) -> None:
        """Replace the basis by the saved one, if the file exists.

        Raises
        ------
        ValueError
            If the file belongs to another problem.
        DamagedFileError
            If it is no search, or one of another version.
        """
        if not self.path.exists():
            return
        tensors, metadata = read_tensors(self.path)
        try:
            self._restore(tensors, metadata)
        except KeyError as error:
            raise DamagedFileError(
                self.path, f"not a search of this version: it lacks {error}"
            ) from None

    def _restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        if metadata["key"] != self.key:
            raise ValueError(self._foreign("other settings"))
        scaling, exponent = self.basis.scaling, _exponent(metadata["exponent"])
        # Rounding may put two images on either side of a power of two.
        doublings = (exponent or 0) - (scaling.exponent or 0)
        saved = tensors["image"].to(self.image)
        is_near = abs(doublings) <= 1 and self._is_close(saved * 2.0**doublings)
        if not is_near or (exponent is None) != (scaling.exponent is None):
            raise ValueError(self._foreign("another operator (parameters, data or loss)"))
        scaling.exponent, self.image = exponent, saved
        self.basis.load(tensors, metadata)

    def _is_close(self, image: Tensor) -> bool:
        # Another number of threads may add samples in another order.
        return agrees(image, self.image, float(self.image.norm()))

    def _foreign(self, of: str) -> str:
        return (
            f"state must be a file of the same search, got {self.path} with {of}; pass another "
            "path, or delete the file to start again"
        )
