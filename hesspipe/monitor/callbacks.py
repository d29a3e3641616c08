"""Callbacks that call a monitor: for the Trainers of Lightning and of transformers.

Both packages are optional, and imported when a callback is made. Only the first process of several
records.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from hesspipe.monitor.monitor import Monitor


class LightningHooks:
    """Calls a monitor at the start, and whenever the number of optimizer steps has changed.

    Its state is in the checkpoints of the Trainer.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint, which may hold those of several monitors."""
        return f"hesspipe.Monitor of {self.monitor.experiment}"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the monitor."""
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        if state_dict:  # empty if it was written before there was a monitor
            self.monitor.load_state_dict(state_dict)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the optimizer, and record where the training starts."""
        self.last = int(trainer.global_step)
        if trainer.is_global_zero:
            self.monitor.adopt_optimizer(trainer.optimizers)
            self.monitor.begin(self.last)

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Count the steps: batches whose gradients are accumulated are none."""
        if trainer.is_global_zero and trainer.global_step != self.last:
            self.last = int(trainer.global_step)
            self.monitor.step(self.last)


class TransformersHooks:
    """Calls a monitor at the start, and after each step of the optimizer.

    Its state is in a file in the folder of each checkpoint.
    """

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self.monitor = monitor

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the optimizer, continue from a checkpoint, and record where the training starts."""
        if state.is_world_process_zero:
            self.monitor.adopt_optimizer(
                each for each in [kwargs.get("optimizer")] if each is not None
            )
            path = self._state_file(args, state)
            if state.global_step and path.exists():
                found = torch.load(path, map_location="cpu", weights_only=True)
                self.monitor.load_state_dict(found)
            self.monitor.begin(int(state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        if state.is_world_process_zero:
            self.monitor.step(int(state.global_step))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the state of the monitor next to that of the Trainer."""
        path = self._state_file(args, state)
        if state.is_world_process_zero and path.parent.is_dir():
            torch.save(self.monitor.state_dict(), path)

    def _state_file(self, args: Any, state: Any) -> Path:
        name = "".join(sign if sign.isalnum() else "_" for sign in self.monitor.experiment)
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        return folder / f"hesspipe_monitor_{name}.pt"


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
