"""Callbacks that call a monitor: for the Trainers of Lightning and of transformers.

Both packages are optional, and imported when a callback is made. Only the first process of several
records.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hesspipe.monitor.monitor import Monitor


class LightningHooks:
    """Calls a monitor at the start, and whenever the number of optimizer steps has changed."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the optimizer, and record where the training starts."""
        self.last = int(trainer.global_step)
        if trainer.is_global_zero:
            self.monitor.adopt_optimizer(trainer.optimizers)
            if self.last % self.monitor.every == 0:
                self.monitor.record(self.last)

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Count the steps: batches whose gradients are accumulated are none."""
        if trainer.is_global_zero and trainer.global_step != self.last:
            self.last = int(trainer.global_step)
            self.monitor.step(self.last)


class TransformersHooks:
    """Calls a monitor at the start, and after each step of the optimizer."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self.monitor = monitor

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the optimizer, and record where the training starts."""
        if state.is_world_process_zero:
            self.monitor.adopt_optimizer(
                each for each in [kwargs.get("optimizer")] if each is not None
            )
            if state.global_step % self.monitor.every == 0:
                self.monitor.record(int(state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        if state.is_world_process_zero:
            self.monitor.step(int(state.global_step))


def lightning_callback(monitor: Monitor) -> Any:
    """Make a Lightning callback; see `Monitor.for_lightning`."""
    reasons = []
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            base = importlib.import_module(name).Callback
        except ImportError as error:
            reasons.append(str(error))
            continue
        return type("HesspipeCallback", (LightningHooks, base), {})(monitor)
    raise ImportError(
        "a Lightning callback needs the package lightning or pytorch_lightning "
        f"({'; '.join(reasons)}); install one with: pip install lightning"
    )


def transformers_callback(monitor: Monitor) -> Any:
    """Make a callback of transformers; see `Monitor.for_transformers`."""
    try:
        base = importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        raise ImportError(
            f"a TrainerCallback needs the package transformers ({error}); install it with: "
            "pip install transformers accelerate"
        ) from error
    return type("HesspipeCallback", (TransformersHooks, base), {})(monitor)
