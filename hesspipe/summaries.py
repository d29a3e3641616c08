"""Results and objectives in a few lines, as an interactive session shows them.

A summary computes nothing that takes time, and reads of a tensor on another device its shape only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = 88
# A longer vector is shown by its first and its last entries.
_NUM_SHOWN = 4


def summary(name: str, **facts: Any) -> str:
    """Write facts as the arguments of a call, in lines of at most 88 columns.

    Texts are quoted, numbers have four digits, and None is left out.

    Examples
    --------
    >>> summary("Spectrum", matrix="ggn", num_parameters=12345, largest=1 / 3)
    "Spectrum(matrix='ggn', num_parameters=12345, largest=0.3333)"
    """
    words = [f"{key}={_shown(value)}" for key, value in facts.items() if value is not None]
    start = f"{name}("
    lines = [start]
    for word in words:
        is_first = lines[-1].strip() in (start, "")
        if not is_first and len(lines[-1]) + len(word) + 2 > _COLUMNS:
            lines[-1] += ","
            lines.append(" " * len(start))
            is_first = True
        lines[-1] += word if is_first else f", {word}"
    return "\n".join(lines) + ")"


def ends(values: Tensor | Sequence[float]) -> Verbatim:
    """Show a vector by its first and last two entries, as NumPy does, and its length.

    Examples
    --------
    >>> ends([-1.0, 0.0, 1e-12, 0.25, 3.0])
    [-1, 0, ..., 0.25, 3] (5 values)
    """
    length = len(values)
    if length <= _NUM_SHOWN:
        return Verbatim(f"[{', '.join(map(_shown, map(float, values)))}]")
    first, last = ([_shown(float(value)) for value in part] for part in (values[:2], values[-2:]))
    return Verbatim(f"[{', '.join([*first, '...', *last])}] ({length:,} values)")


def layout(tensor: Tensor) -> Verbatim:
    """Show a tensor by its shape, its dtype and, if it is elsewhere, its device.

    Examples
    --------
    >>> import torch
    >>> layout(torch.zeros(3, 2))
    (3, 2) float32
    """
    device = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    return Verbatim(f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}{device}")


class Verbatim(str):
    """A text that a summary shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, Verbatim) else repr(value)
