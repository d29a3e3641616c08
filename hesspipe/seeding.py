"""Independent random streams, one for each (seed, purpose).

The stream of one purpose does not change when another purpose draws more or fewer numbers, and no
global state is read or set. `probe` is a fixed vector, for tests of identities.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive_seed(seed: int, purpose: str, num_bits: int = 63) -> int:
    """Derive the seed of one purpose's stream.

    A hash rather than a sum: seed 0 of one purpose then has nothing to do with seed 1 of
    another.

    Parameters
    ----------
    seed : int
        Seed of the run, at least 0.
    purpose : str
        What the numbers are for, e.g. "initial parameters".
    num_bits : int
        Size of the result, 1 to 63; NumPy's and scikit-learn's seeds have 32.

    Returns
    -------
    int
        In [0, 2**num_bits).

    Examples
    --------
    >>> derive_seed(0, "batches") == derive_seed(0, "batches")
    True
    >>> derive_seed(0, "batches") == derive_seed(1, "batches")
    False
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not 1 <= num_bits <= 63:
        raise ValueError(f"num_bits must be 1 to 63, got {num_bits}")
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - num_bits)


def generator(seed: int, purpose: str) -> torch.Generator:
    """Make the generator of one purpose, on the CPU so that all devices use equal numbers."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, purpose))


def probe_generator() -> torch.Generator:
    """Make the generator of fixed test vectors."""
    import torch

    return torch.Generator().manual_seed(0)


def probe(like: Tensor) -> Tensor:
    """Draw the fixed test vector: standard normal numbers, the same at every call.

    An identity that holds for one vector in general position holds for all, with probability 1.

    Parameters
    ----------
    like : Tensor
        Gives the shape, dtype and device.

    Returns
    -------
    Tensor
        Drawn in float64 on the CPU, so that every dtype and device sees equal numbers.

    Examples
    --------
    >>> import torch
    >>> probe(torch.zeros(2))
    tensor([ 1.5410, -0.2934])
    """
    import torch

    numbers = torch.randn(
        like.shape, generator=probe_generator(), dtype=torch.float64, device="cpu"
    )
    return numbers.to(like)
