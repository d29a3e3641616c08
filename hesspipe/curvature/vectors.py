"""What a symmetric operator may be multiplied with: vectors of torch or NumPy, checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from hesspipe.objective.differentiability import refuse_transforms
from hesspipe.summaries import Verbatim, summary

if TYPE_CHECKING:
    from numpy.typing import NDArray


class VectorProduct(ABC):
    """An operator that multiplies vectors of torch or NumPy.

    Attributes
    ----------
    shape : tuple of int
    dtype : torch.dtype
    device : torch.device
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def __repr__(self) -> str:
        return summary(
            type(self).__name__,
            shape=Verbatim(self.shape),
            num_data=getattr(self, "num_data", None),
            dtype=Verbatim(self.dtype),
            device=Verbatim(self.device),
        )

    @overload
    def __matmul__(self, vectors: Tensor) -> Tensor: ...

    @overload
    def __matmul__(self, vectors: NDArray[Any]) -> NDArray[Any]: ...

    def __matmul__(self, vectors: Tensor | NDArray[Any]) -> Tensor | NDArray[Any]:
        """Multiply vectors (P,) or (P, K), of torch or NumPy; the result has the same type."""
        with self.telling_errors():
            product: Tensor | NDArray[Any] = multiply_vectors(
                self._multiply, vectors, self.shape[0], self.dtype, self.device
            )
            return product

    def telling_errors(self) -> AbstractContextManager[None]:
        """Raise errors of a product in all processes, if there are several."""
        return nullcontext()

    @abstractmethod
    def _multiply(self, vectors: Tensor) -> Tensor:
        """Multiply tensors that have been checked."""


def multiply_vectors(
    multiply: Callable[[Tensor], Tensor],
    vectors: Any,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """Check vectors, multiply them, and return the products in the type of the vectors.

    Parameters
    ----------
    multiply : callable (Tensor) -> Tensor
        Takes the vectors without a graph.
    vectors : Tensor or array, shape (size,) or (size, K)
        Tensors must have the dtype and device of the operator. Arrays of real numbers are
        converted.
    size : int
    dtype, device
        Of the operator.

    Returns
    -------
    Tensor or array, in the shape of the vectors

    Raises
    ------
    TypeError
        If the vectors are neither.
    ValueError
        If the shape, dtype or device is wrong, or an array is not of real numbers.
    """
    if isinstance(vectors, np.ndarray):
        given = torch.from_numpy(_converted(vectors, dtype)).to(device)
        product: NDArray[Any] = _multiply_tensor(multiply, given, size, dtype, device).cpu().numpy()
        return product
    if not isinstance(vectors, Tensor):
        raise TypeError(
            f"vectors must be a tensor or a NumPy array, got {type(vectors).__name__}; convert "
            f"with torch.as_tensor(vectors, dtype={dtype})"
        )
    return _multiply_tensor(multiply, vectors, size, dtype, device)


def _multiply_tensor(
    multiply: Callable[[Tensor], Tensor],
    vectors: Tensor,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    refuse_transforms()
    is_dense = vectors.layout == torch.strided and not vectors.is_nested
    if is_dense and (vectors.ndim not in (1, 2) or vectors.shape[0] != size):
        raise ValueError(
            f"vectors must have shape ({size},) or ({size}, K), got {tuple(vectors.shape)}"
        )
    if vectors.dtype != dtype or vectors.device != device or not is_dense:
        layout = "" if is_dense else ", sparse or nested"
        raise ValueError(
            f"vectors must be {dtype} on {device}, like the operator, got {vectors.dtype} on "
            f"{vectors.device}{layout}"
        )
    if forward_ad.unpack_dual(vectors).tangent is not None:
        raise ValueError(
            "vectors must have no tangent, got a dual one of torch.autograd.forward_ad; products "
            "are linear, and H @ tangent is the tangent of H @ vector"
        )
    vectors = vectors.detach()
    return multiply(vectors) if vectors.numel() else torch.zeros_like(vectors)


def _converted(array: NDArray[Any], dtype: torch.dtype) -> NDArray[Any]:
    """Copy an array of real numbers in the dtype of an operator."""
    if array.dtype.kind not in "biuf" or np.ma.isMaskedArray(array):
        what = "a masked array" if np.ma.isMaskedArray(array) else f"dtype {array.dtype}"
        raise ValueError(f"vectors must be real numbers, got {what}")
    return np.array(
        array, torch.empty(0, dtype=dtype, device="cpu").numpy().dtype, order="C", subok=False
    )
