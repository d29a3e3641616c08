"""A small transformer that predicts the next character of a text."""

from __future__ import annotations

import torch
from text import CHARACTERS
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Causal attention, then a layer of hidden units; each added to its normalized input."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Map states of shape (N, length, width) to states of the same shape."""
        joined = self.queries_keys_values(self.attention_norm(states))
        parts = joined.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*parts, is_causal=True)
        states = states + self.attention_output(attended.transpose(1, 2).flatten(2))
        return states + self.hidden(self.hidden_norm(states))


class Transformer(nn.Module):
    """Characters (N, length) to logits (N, number of characters, length)."""

    def __init__(self, length: int, width: int, num_heads: int, num_blocks: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(CHARACTERS), width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(num_blocks)))
        self.head_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(CHARACTERS))

    def forward(self, characters: Tensor) -> Tensor:
        """Predict, at each place, the next character from those up to it."""
        states = self.blocks(self.characters(characters) + self.positions)
        return self.head(self.head_norm(states)).transpose(1, 2)
