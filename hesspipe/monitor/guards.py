"""What a monitor refuses, and errors of records as warnings."""

from __future__ import annotations

import warnings
from typing import Any

from torch.optim import Optimizer

from hesspipe.objective.objective import Objective


class RecordWarning:
    """Turns an error into a warning that names the record."""

    def __init__(self, number: int, what: str) -> None:
        self.number, self.what = number, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        text = " ".join(str(error).split()) or type(error).__name__
        message = f"the record of the monitor at step {self.number} {self.what}: {text}"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
        return True


def is_wrapper(optimizer: object) -> bool:
    """Tell whether an object has an optimizer, as those of accelerate and Lightning do."""
    return isinstance(getattr(optimizer, "optimizer", None), Optimizer)


def require_kinds(objective: object, optimizer: object, on_error: str) -> None:
    """Refuse what is no objective or no optimizer, and unknown ways to treat errors."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective must be an Objective, got {type(objective).__name__}; build one with "
            "hesspipe.Objective(model, loss_fn, data), and pass the model as well"
        )
    if not (optimizer is None or hasattr(optimizer, "param_groups") or is_wrapper(optimizer)):
        raise TypeError(
            f"optimizer must be one Optimizer of torch, or None, got {type(optimizer).__name__}; "
            "of several, pass the one that moves the parameters of the objective"
        )
    if on_error not in ("warn", "raise"):
        raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
