"""The calls of torch in which a network multiplies its weights with inputs.

They are read from the calls, not from modules: a weight may be used several times, by any module
or by none. What a call computes has the slopes of a leaf of zeros that is added to it, so that no
later change in place can spoil them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hesspipe.objective.objective import Objective

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_CONVOLUTION_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
# Products of inputs with a matrix, by the places of both among the arguments.
_PRODUCTS = {
    functional.linear: (0, 1),
    torch.addmm: (1, 2),
    torch.matmul: (0, 1),
    torch.mm: (0, 1),
    Tensor.matmul: (0, 1),
    Tensor.mm: (0, 1),
    Tensor.__matmul__: (0, 1),
}


@dataclass(frozen=True)
class Use:
    """One call that multiplies a weight with inputs.

    Attributes
    ----------
    name : str
        Of the parameter.
    inputs : Tensor, shape (groups, T, K)
        a_t, for each group of a convolution; one group for others.
    delta : Tensor
        A leaf of zeros that is added to the result.
    arrange : callable (Tensor (k, *delta.shape)) -> Tensor (k, groups, T, U)
        Arranges slopes in the delta by position.
    is_transposed : bool
        Whether the parameter has the shape (K, U), and not (groups U, K).
    num_units : int
        U, of one group.
    """

    name: str
    inputs: Tensor
    delta: Tensor
    arrange: Callable[[Tensor], Tensor]
    is_transposed: bool
    num_units: int

    def gradients(self, slopes: Tensor) -> Tensor:
        """Compute dW for slopes (k, *delta.shape): shape (k, numel of the parameter)."""
        arranged = self.arrange(slopes)  # (k, groups, T, U)
        if self.is_transposed:
            return (self.inputs.mT @ arranged).flatten(1)
        return (arranged.mT @ self.inputs).flatten(1)


class Recorder(TorchFunctionMode):
    """Records the calls that multiply a parameter, and adds a delta to the result of each.

    Parameters
    ----------
    objective : Objective
    theta : Tensor, shape (P,)
        That the objective's outputs are computed with.
    names : set of str
        Of the parameters whose calls are recorded.

    Attributes
    ----------
    uses : list of Use
        In the order of the calls.
    """

    def __init__(self, objective: Objective, theta: Tensor, names: set[str]) -> None:
        super().__init__()
        self.uses: list[Use] = []
        self._places: dict[int, tuple[str, torch.Size]] = {}
        address = theta.data_ptr()
        for name, shape in zip(objective.names, objective.shapes, strict=True):
            if name in names:
                self._places[address] = name, shape
            address += shape.numel() * theta.element_size()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        use = None
        if func in _CONVOLUTIONS:
            given = dict(zip(_CONVOLUTION_ARGUMENTS, args, strict=False)) | kwargs
            use = self._convolution(_CONVOLUTIONS[func], given, output)
        elif func in _PRODUCTS and not kwargs:
            use = self._product(func, args, output)
        if use is None:
            return output
        self.uses.append(use)
        return output + use.delta

    def _find(self, weight: Any) -> tuple[str, bool] | None:
        """The parameter that a tensor is, and whether it is its transpose."""
        if not isinstance(weight, Tensor) or weight.numel() == 0:
            return None
        name, shape = self._places.get(weight.data_ptr(), ("", torch.Size()))
        if weight.shape == shape and weight.is_contiguous():
            return name, False
        if weight.ndim == 2 and weight.mT.shape == shape and weight.mT.is_contiguous():
            return name, True
        return None

    def _product(self, func: Any, args: tuple[Any, ...], output: Tensor) -> Use | None:
        place, place_of_weight = _PRODUCTS[func]
        found = self._find(args[place_of_weight]) if len(args) > place_of_weight else None
        if found is None or args[place_of_weight].ndim != 2:
            return None
        inputs = args[place].detach()
        return Use(
            name=found[0],
            inputs=inputs.reshape(1, -1, inputs.shape[-1]).clone(),
            delta=torch.zeros_like(output, requires_grad=True),
            arrange=lambda slopes: slopes.reshape(len(slopes), 1, -1, slopes.shape[-1]),
            is_transposed=found[1] == (func is functional.linear),
            num_units=output.shape[-1],
        )

    def _convolution(self, ndim: int, given: dict[str, Any], output: Tensor) -> Use | None:
        found = self._find(given["weight"])
        if found is None or found[1]:
            return None
        groups = given.get("groups", 1)
        num_units = output.shape[-ndim - 1] // groups

        def arrange(slopes: Tensor) -> Tensor:
            images = slopes.flatten(-ndim)  # (k, n, groups U, S), where n may be missing
            images = images.reshape(len(slopes), -1, groups, num_units, images.shape[-1])
            return images.permute(0, 2, 1, 4, 3).flatten(2, 3)

        return Use(
            name=found[0],
            inputs=_patches(ndim, **given),
            delta=torch.zeros_like(output, requires_grad=True),
            arrange=arrange,
            is_transposed=False,
            num_units=num_units,
        )


def _patches(
    ndim: int,
    *,
    input: Tensor,  # noqa: A002 (the names are those of torch)
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: Tensor | None = None,
) -> Tensor:
    """Extract what a convolution multiplies with its weight, of shape (groups, T, K)."""
    images = input.detach()
    images = images.unsqueeze(0) if images.ndim == ndim + 1 else images
    size = weight.shape[2:]
    steps, gaps = (
        [value] * ndim if isinstance(value, int) else list(value) * (ndim // len(value))
        for value in (stride, dilation)
    )
    spans = [gap * (length - 1) + 1 for gap, length in zip(gaps, size, strict=True)]
    if isinstance(padding, str):
        pads = [
            ((span - 1) // 2, span - 1 - (span - 1) // 2) if padding == "same" else (0, 0)
            for span in spans
        ]
    else:
        widths = (
            [padding] * ndim if isinstance(padding, int) else list(padding) * (ndim // len(padding))
        )
        pads = [(width, width) for width in widths]
    windows: Tensor = functional.pad(images, [width for pair in reversed(pads) for width in pair])
    for axis, (span, step) in enumerate(zip(spans, steps, strict=True)):
        windows = windows.unfold(2 + axis, span, step)
    for axis, gap in enumerate(gaps):  # the kernel's, after those of the output
        windows = windows[(slice(None),) * (2 + ndim + axis) + (slice(None, None, gap),)]
    windows = windows.unflatten(1, (groups, -1))  # (n, groups, channels, *output, *kernel)
    output_axes = range(3, 3 + ndim)
    kernel_axes = range(3 + ndim, 3 + 2 * ndim)
    arranged = windows.permute(1, 0, *output_axes, 2, *kernel_axes)
    patches: Tensor = arranged.reshape(groups, -1, weight[0].numel())
    return patches
