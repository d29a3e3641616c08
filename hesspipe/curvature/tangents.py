"""Blocks of R between two layers of a piecewise linear network, by forward tangents.

    R[(l,o,k),(m,j,b)] = sum_n sum_s d_l[o,s] (d a_l[k,s] / d W~_m[j,b])

In a piecewise linear network, the map from a change of the pre-activations of the early layer m
to the change of the patches of the late layer l is linear. Units of the early layer that reach
different entries of those patches can be moved in one pass: after pooling and activations, each
entry of the next layer's patch comes from one channel. Where a layer in between mixes the
channels, changes are carried up to it for all units at once, and from there for each unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hesspipe.curvature.layers import chunks
from hesspipe.curvature.products import pull_back
from hesspipe.seeding import probe

# Numbers per pass: more do not fit into the cache, fewer leave the cores idle.
_PASS_NUMBERS = 2**21

# Tangents of pre-activations, (B, n, U, S), to tangents of later patches, (B, n, K, S').
Push = Callable[[Tensor], Tensor]


def pusher(patches: Tensor, delta: Tensor) -> Push | None:
    """Return the map from changes of pre-activations to changes of patches.

    The gradient of <u, patches> is linear in u, and its derivative by u is that map. So only
    reverse-mode differentiation is used, as in all of `hesspipe.curvature`.

    Parameters
    ----------
    patches : Tensor, shape (n, K, S')
        With a graph.
    delta : Tensor, shape (n, U, S)
        The leaf to move.

    Returns
    -------
    Push, or None
        None if patches do not depend on delta.
    """
    if not patches.requires_grad:
        return None
    pulled = patches.new_zeros(patches.numel(), requires_grad=True)
    (gradient,) = torch.autograd.grad(
        patches, delta, pulled.view(patches.shape), create_graph=True, allow_unused=True
    )
    if gradient is None or not gradient.requires_grad:
        return None

    def push(tangents: Tensor) -> Tensor:
        return pull_back(gradient, pulled, tangents).view(len(tangents), *patches.shape)

    return push


def separate_units(push: Push, num_inputs: int, delta: Tensor) -> list[Tensor]:
    """Divide the earlier layer's units into groups that reach different entries of the patches.

    Parameters
    ----------
    push : Push
    num_inputs : int
        K.
    delta : Tensor, shape (n, U, S)

    Returns
    -------
    list of Tensor, shape (K,)
        For each group, the unit that each entry depends on, -1 where on none of the group.
    """
    numbers = probe(delta)
    groups: list[Tensor] = []
    for unit in range(delta.shape[1]):
        tangent = torch.zeros_like(delta)
        tangent[:, unit] = numbers[:, unit]
        is_reached = push(tangent.unsqueeze(0))[0].ne(0).any(2).any(0)  # (K,)
        if not is_reached.any():
            continue
        for owners in groups:
            if not (owners[is_reached] >= 0).any():
                owners[is_reached] = unit
                break
        else:
            owners = torch.full((num_inputs,), -1, dtype=torch.long, device=delta.device)
            owners[is_reached] = unit
            groups.append(owners)
    return groups


def units_of(owners: Tensor) -> Tensor:
    """The units of a group, ascending."""
    units: Tensor = owners[owners >= 0].unique()
    return units


def block_of_group(
    push: Push, owners: Tensor, slopes: Tensor, patches: Tensor, num_units: int
) -> Tensor:
    """Compute sum_n sum_s d[o,s] (d a[k,s] / d W~[owner of k, b]).

    Parameters
    ----------
    push : Push
    owners : Tensor, shape (K,)
        A group.
    slopes : Tensor, shape (n, O, S')
        d of the later layer.
    patches : Tensor, shape (n, width, S)
        a~ of the earlier layer.
    num_units : int
        Of the earlier layer.

    Returns
    -------
    Tensor, shape (O, K, width)
    """
    num_samples, width, num_positions = patches.shape
    block = patches.new_empty(width, slopes.shape[1], len(owners))
    pass_numbers = num_samples * (num_units * num_positions + len(owners) * slopes.shape[2])
    step = num_at_once(pass_numbers)
    for entries, moved in _moved_patches(push, owners, patches, num_units, step):
        block[entries] = _sum_over_samples(slopes, moved)
    return block.permute(1, 2, 0)


def block_through(
    first: Push,
    second: Push,
    weight: Tensor,
    owners: Tensor,
    slopes: Tensor,
    patches: Tensor,
    num_units: int,
) -> Tensor:
    """Compute sum_n sum_s d[o,s] (d a[k,s] / d W~[j,b]) through a layer in between.

    Parameters
    ----------
    first : Push
        To the patches of the layer in between.
    second : Push
        From its pre-activations.
    weight : Tensor, shape (U', K')
        Of the layer in between.
    owners : Tensor, shape (K',)
        The only group of the earlier layer's units, for `first`.
    slopes : Tensor, shape (n, O, S')
        d of the later layer.
    patches : Tensor, shape (n, width, S)
        a~ of the earlier layer.
    num_units : int
        Of the earlier layer.

    Returns
    -------
    Tensor, shape (O, K, J, width)
        For the J units of the group.
    """
    reached = [(owners == unit).nonzero().flatten() for unit in units_of(owners)]
    blocks = []
    for _, (moved,) in _moved_patches(first, owners, patches, num_units, step=1):
        parts = []
        step = num_at_once(len(moved) * len(weight) * moved.shape[2])
        for part in chunks(len(reached), step):
            tangents = [
                weight[:, inputs].expand(len(moved), -1, -1) @ moved[:, inputs]  # (n, U', S)
                for inputs in reached[part]
            ]
            parts.append(_sum_over_samples(slopes, second(torch.stack(tangents))))
        blocks.append(torch.cat(parts))  # (J, O, K)
    return torch.stack(blocks).permute(2, 3, 1, 0)


def _moved_patches(
    push: Push, owners: Tensor, patches: Tensor, num_units: int, step: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Move the weights of all units of a group, for some entries b of a~ at a time.

    Yields the entries, shape (B,), and the changes of the later patches, shape (B, n, K, S').
    """
    units = units_of(owners)
    num_samples, width, num_positions = patches.shape
    for entries in torch.arange(width, device=patches.device).split(step):
        tangents = patches.new_zeros(len(entries), num_samples, num_units, num_positions)
        tangents[:, :, units] = patches[:, entries].transpose(0, 1).unsqueeze(2)
        yield entries, push(tangents)


def num_at_once(numbers: int) -> int:
    """Return the number of tangents, or gradients, of this size to compute in one pass."""
    return max(1, _PASS_NUMBERS // numbers)


def _sum_over_samples(slopes: Tensor, patches: Tensor) -> Tensor:
    """Sum d a^T over samples and positions: (B, O, K)."""
    if slopes.shape[2] == 1:
        return slopes.squeeze(2).mT @ patches.squeeze(3)
    return (slopes @ patches.mT).sum(1)
