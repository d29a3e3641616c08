"""Passages of the Python language reference, from the module pydoc_data.topics of Python."""

from __future__ import annotations

import string

import torch
from torch import Tensor

# Other characters of the text become spaces.
CHARACTERS = string.printable[:95] + "\n"


def passages(
    num_train: int, num_test: int, length: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw passages of characters; the target of each character is the one that follows it.

    Parameters
    ----------
    num_train, num_test : int
        Passages; the held-out ones are drawn from the last tenth of the text.
    length : int
        Characters in a passage.
    seed : int

    Returns
    -------
    train_inputs, train_targets, test_inputs, test_targets : Tensor, shape (N, length), int64
        Places in `CHARACTERS`.
    """
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    place = {character: index for index, character in enumerate(CHARACTERS)}
    codes = torch.tensor([place.get(character, place[" "]) for character in text])
    split = len(codes) * 9 // 10
    generator = torch.Generator().manual_seed(seed)
    train = _draw(codes[:split], num_train, length, generator)
    return *train, *_draw(codes[split:], num_test, length, generator)


def _draw(
    codes: Tensor, number: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(codes) - length, (number, 1), generator=generator)
    places = starts + torch.arange(length)
    return codes[places], codes[places + 1]
