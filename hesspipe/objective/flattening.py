"""Named tensors as one flat vector, and back.

The order is that of the mapping, as of `model.named_parameters()`, each tensor row-major. An
objective, a checkpoint and a path through parameter space all use this one layout.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """Concatenate named tensors.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Of one dtype, on one device.

    Returns
    -------
    Tensor, shape (P,)
        A copy.

    Examples
    --------
    >>> flatten({"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    tensor([1., 1., 1., 1., 0., 0.])
    """
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(theta: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Split a flat vector into named tensors.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    shapes : mapping of str to torch.Size
        P entries in total.

    Returns
    -------
    dict of str to Tensor
        Views of theta, through which gradients flow.

    Examples
    --------
    >>> shapes = {"weight": torch.Size([2, 2]), "bias": torch.Size([2])}
    >>> unflatten(torch.arange(6), shapes)["weight"]
    tensor([[0, 1],
            [2, 3]])
    """
    parts = theta.split([shape.numel() for shape in shapes.values()])
    pairs = zip(shapes.items(), parts, strict=True)
    return {name: part.view(shape) for (name, shape), part in pairs}


def differentiable(tensor: Tensor) -> Tensor:
    """Return the same numbers as a leaf of a graph."""
    return tensor.detach().requires_grad_()


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return named tensors as leaves of a graph, by which a function of them is differentiated.

    The derivatives need not be joined to one vector, which would take the memory of another.
    """
    return {name: differentiable(tensor) for name, tensor in tensors.items()}
