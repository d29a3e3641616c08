"""A search that is saved and resumed: its basis, and a proof that it is the same problem's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hesspipe.files import read_tensors, write_tensors
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import random_unit
from hesspipe.seeding import generator
from hesspipe.tolerances import agrees


class SearchState:
    """A file that holds a search's basis.

    The settings must be the same when it is read, which their hash shows, and so must the operator:
    a product with a fixed random vector is stored, and made again. It depends on the parameters,
    the data and the loss alike.

    Parameters
    ----------
    path : str or Path
        Ends in .safetensors. Of several processes, each needs one of its own.
    basis : KrylovBasis
    settings : mapping
        JSON-like: what else decides the search.
    """

    def __init__(
        self, path: str | Path, basis: KrylovBasis, settings: Mapping[str, object]
    ) -> None:
        self.path, self.basis = Path(path), basis
        product = basis.product
        about = {
            "dim": product.dim,
            "dtype": str(product.dtype),
            "name": product.name,
            "capacity": basis.capacity,
            "seed": basis.seed,
            **settings,
        }
        self.key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        self.image = product.multiply(random_unit(product, generator(0, "operator's identity")))
        basis.num_products += 1

    def save(self) -> None:
        """Write the basis, atomically."""
        tensors, numbers = self.basis.state()
        write_tensors(tensors | {"image": self.image}, self.path, {"key": self.key, **numbers})

    def load(self) -> None:
        """Put the saved basis in place of the one just begun, if there is a file.

        Raises
        ------
        ValueError
            If it is another problem's.
        """
        if not self.path.exists():
            return
        tensors, about = read_tensors(self.path)
        if about.get("key") != self.key:
            raise ValueError(self._foreign("other settings"))
        if not self._is_close(tensors["image"].to(self.image)):
            raise ValueError(self._foreign("another operator (parameters, data or loss)"))
        self.basis.load(tensors, about)

    def _is_close(self, image: Tensor) -> bool:
        # Sums over samples may be taken in another order by another number of threads.
        return agrees(image, self.image, float(self.image.norm()))

    def _foreign(self, of: str) -> str:
        return (
            f"state must be a file of the same search, got {self.path} with {of}; pass another "
            "path, or delete the file to begin anew"
        )
