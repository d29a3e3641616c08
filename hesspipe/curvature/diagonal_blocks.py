"""Diagonal blocks of a symmetric operator: M_SS for a set S of its rows and columns."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hesspipe.curvature.vectors import VectorProduct


class DiagonalBlock(VectorProduct):
    """The rows and columns of a symmetric operator that belong to a set of parameters.

    The spectrum of a layer is that of its diagonal block. Where the operator is H, G or R of an
    objective, the functions of hesspipe hold the parameters without a member constant, so that the
    cost and the memory are those of the others; `hesspipe.layer_spectra` does so for every layer.

    Parameters
    ----------
    operator : object with `shape`, `dtype`, `device` and `@`
        Symmetric, of shape (P, P).
    is_member : Tensor of bool, shape (P,)
        True for the p entries of the block, whose order is kept.

    Attributes
    ----------
    operator
    shape : tuple
        (p, p).
    dtype, device
        Those of the operator.

    Raises
    ------
    ValueError
        If is_member has no true entry, or not P entries.

    Examples
    --------
    >>> matrix = torch.arange(9.0).view(3, 3)
    >>> block = DiagonalBlock(matrix, torch.tensor([True, False, True]))
    >>> block @ torch.eye(2)
    tensor([[0., 2.],
            [6., 8.]])
    """

    def __init__(self, operator: Any, is_member: Tensor) -> None:
        shape, dtype = getattr(operator, "shape", None), getattr(operator, "dtype", None)
        has_products = hasattr(operator, "device") and hasattr(operator, "__matmul__")
        if shape is None or not isinstance(dtype, torch.dtype) or not has_products:
            raise TypeError(
                "operator must have shape, dtype, device and @, as a tensor has, got "
                f"{type(operator).__name__}; hesspipe.HessianOperator makes one of an Objective"
            )
        if len(shape) != 2 or shape[0] != shape[1] or not dtype.is_floating_point:
            raise ValueError(
                "operator must be square and of floating point, got shape "
                f"{tuple(shape)} of {dtype}"
            )
        if not isinstance(is_member, Tensor):
            raise TypeError(
                f"is_member must be {shape[0]} booleans in a tensor, got "
                f"{type(is_member).__name__}; convert with torch.as_tensor, or name "
                "parameters by hesspipe.layer_spectra(objective, groups)"
            )
        if is_member.shape != (shape[0],) or is_member.dtype != torch.bool:
            raise ValueError(
                f"is_member must be {shape[0]} booleans, got {is_member.dtype} of shape "
                f"{tuple(is_member.shape)}"
            )
        if not is_member.any():
            raise ValueError("is_member must have a true entry, got none")
        self.operator = operator
        self._is_member = is_member.to(operator.device)
        size = int(is_member.sum())
        self.shape = (size, size)
        self.dtype: torch.dtype = operator.dtype
        self.device: torch.device = operator.device

    @property
    def whole(self) -> Any:
        """The operator itself; that of a block of a block is the outermost."""
        return self.operator.whole if isinstance(self.operator, DiagonalBlock) else self.operator

    @property
    def places(self) -> Tensor:
        """Rows of `whole` that belong to the block, shape (p,)."""
        places = self._is_member.nonzero().flatten()
        return self.operator.places[places] if isinstance(self.operator, DiagonalBlock) else places

    def telling_errors(self) -> AbstractContextManager[None]:
        """Raise errors of a product in all processes, as the operator does."""
        whole = self.operator
        return whole.telling_errors() if isinstance(whole, VectorProduct) else nullcontext()

    def _multiply(self, vectors: Tensor) -> Tensor:
        padded = vectors.new_zeros((len(self._is_member), *vectors.shape[1:]))
        padded[self._is_member] = vectors
        product: Tensor = (self.operator @ padded)[self._is_member]
        return product
