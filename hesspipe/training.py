"""Constant-step descent, GD and SGD, that can be killed and goes on where it was.

The update is theta <- theta - step_size * gradient, without momentum or decay, so the
parameters at a step are the whole state: a checkpoint and the (stateless) order of batches
are enough to resume with results that are equal to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hesspipe.data import Dataset
from hesspipe.files import DamagedFileError, atomic_path, read_tensors, write_tensors
from hesspipe.seeding import generator

LossFunction = Callable[[Tensor, Tensor], Tensor]


class DivergedError(ArithmeticError):
    """The loss or a parameter is no longer finite; the message says where and what to change."""


@dataclass(frozen=True)
class Schedule:
    """How a network is trained, and what is kept.

    Attributes
    ----------
    step_size : float
        Constant factor of the gradient of the mean loss.
    num_steps : int
        Updates.
    batch_size : int or None
        Samples in a batch; None is all of them (GD). The last batch of an epoch holds what
        is left over, and its gradient is the mean over what it holds.
    record_every, checkpoint_every : int
        Steps between rows of the history, and between checkpoints; both also at step 0 and
        at the last one.
    """

    step_size: float
    num_steps: int
    batch_size: int | None
    record_every: int
    checkpoint_every: int

    def __post_init__(self) -> None:
        if self.checkpoint_every % self.record_every:
            raise ValueError(
                f"checkpoint_every must be a multiple of record_every ({self.record_every}), "
                f"got {self.checkpoint_every}"
            )

    def is_due(self, step: int, every: int) -> bool:
        """Whether something done `every` so many steps is done at this step."""
        return step % every == 0 or step == self.num_steps


def pick_device() -> torch.device:
    """Pick the device at run time: $HESSPIPE_DEVICE if set, else the first GPU, else the CPU.

    Raises
    ------
    ValueError
        If the variable names a device that torch cannot use here.
    """
    name = os.environ.get("HESSPIPE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"HESSPIPE_DEVICE must name a usable device such as 'cpu' or 'cuda:0', got {name!r} "
            f"({error})"
        ) from None
    return device


def train(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    path_to_state: str | Path,
    loss_fn: LossFunction = nn.functional.cross_entropy,
    about: Mapping[str, str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Minimize a loss, keeping checkpoints on the way.

    If `path_to_state` holds checkpoints of an earlier, interrupted call, training goes on
    from the newest readable one. On one machine with one number of threads the result is
    bit-identical to that of an undisturbed call.

    Parameters
    ----------
    model : nn.Module
        At its initial point; trained in place.
    data : Dataset
        In the model's dtype, on its device.
    schedule : Schedule
    seed : int
        Orders the batches.
    path_to_state : str or Path
        A folder for this training alone: `step<step>.safetensors` for each checkpoint and
        `history.parquet`.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        The paper's is the mean cross-entropy.
    about : mapping of str to str, optional
        Stored in every checkpoint.
    progress : bool
        Show a progress bar with the last recorded loss.

    Returns
    -------
    DataFrame
        step, train_loss, train_accuracy, test_loss, test_accuracy, gradient_norm; one row
        every `record_every` steps. Cross-entropies are means over samples, in nats; accuracies
        are in [0, 1]; gradient_norm is that of the loss over the whole training set. What does
        not exist (without held-out data, or without class labels) is None.

    Raises
    ------
    DivergedError
        If the loss or a parameter is not finite. Earlier checkpoints stay.
    """
    folder = Path(path_to_state)
    parameters: list[Tensor] = list(model.parameters())
    start, rows = _resume(model, folder)
    batches = _batches(data, schedule, seed, start)
    bar = tqdm(
        range(start, schedule.num_steps + 1),
        initial=start,
        total=schedule.num_steps,
        desc="training",
        unit="step",
        disable=not progress,
        mininterval=1.0,
    )
    for step in bar:
        if schedule.is_due(step, schedule.record_every):
            rows.append(_evaluate(model, data, loss_fn, step))
            _check_finite(rows[-1]["gradient_norm"], "norm of the gradient", step, schedule, folder)
            bar.set_postfix(loss=f"{rows[-1]['train_loss']:.3g}", refresh=False)
        if schedule.is_due(step, schedule.checkpoint_every):
            _save(model, rows, folder, step, about or {})
        if step == schedule.num_steps:
            break
        inputs, targets = next(batches)
        loss = loss_fn(model(inputs), targets)
        _check_finite(loss.item(), "loss", step, schedule, folder)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-schedule.step_size)
    return pd.DataFrame(rows)


def state_folder(specification: Mapping[str, Any]) -> Path:
    """Folder for the unfinished state of one training: equal specifications share it.

    Parameters
    ----------
    specification : mapping
        JSON-like; everything that decides the numbers.
    """
    text = json.dumps(specification, sort_keys=True)
    return Path(".hesspipe", "training", hashlib.sha256(text.encode()).hexdigest()[:16])


def load_checkpoint(model: nn.Module, path: str | Path) -> dict[str, str]:
    """Put a checkpoint's parameters and buffers into a model of the same architecture.

    Returns
    -------
    dict of str to str
        The step, and what was stored with it.

    Raises
    ------
    DamagedFileError
        If the file is truncated, or its tensors are not this model's.
    """
    tensors, about = read_tensors(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFileError(path, f"not a checkpoint of this model: {error}") from None
    return about


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where a training's state keeps the checkpoint of a step."""
    return folder / f"step{step}.safetensors"


def _save(
    model: nn.Module,
    rows: list[dict[str, Any]],
    folder: Path,
    step: int,
    about: Mapping[str, str],
) -> None:
    """The history first: a checkpoint then never lies ahead of it."""
    with atomic_path(folder / "history.parquet") as temporary:
        pd.DataFrame(rows).to_parquet(temporary)
    write_tensors(model.state_dict(), checkpoint_path(folder, step), {"step": str(step), **about})


def _resume(model: nn.Module, folder: Path) -> tuple[int, list[dict[Any, Any]]]:
    """Load the newest readable checkpoint; its step, and the rows recorded before it."""
    steps = [int(path.stem.removeprefix("step")) for path in folder.glob("step*.safetensors")]
    for step in sorted(steps, reverse=True):
        path = checkpoint_path(folder, step)
        try:
            load_checkpoint(model, path)
            history = pd.read_parquet(folder / "history.parquet")
        except (DamagedFileError, OSError, ValueError):
            continue  # a disk that lost power; training from the one before writes it anew
        return step, history[history["step"] < step].to_dict("records")
    return 0, []


def _batches(
    data: Dataset, schedule: Schedule, seed: int, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from step `start` on; each epoch's order depends on its number alone."""
    num_samples = len(data.train_inputs)
    if schedule.batch_size is None:
        while True:
            yield data.train_inputs, data.train_targets
    starts = range(0, num_samples, schedule.batch_size)
    epoch, first = divmod(start, len(starts))
    while True:
        order = torch.randperm(num_samples, generator=generator(seed, f"batches of epoch {epoch}"))
        order = order.to(data.train_inputs.device)
        for position in starts[first:]:
            chosen = order[position : position + schedule.batch_size]
            yield data.train_inputs[chosen], data.train_targets[chosen]
        epoch, first = epoch + 1, 0


def _check_finite(value: float, what: str, step: int, schedule: Schedule, folder: Path) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"training diverged: at step {step} the {what} is {value}, with step_size "
            f"{schedule.step_size}; choose a smaller step_size. The checkpoints of the steps "
            f"before it are kept in {folder}"
        )


def _evaluate(
    model: nn.Module, data: Dataset, loss_fn: LossFunction, step: int
) -> dict[str, float | None]:
    """One row of the history."""
    parameters = list(model.parameters())
    outputs = model(data.train_inputs)
    loss = loss_fn(outputs, data.train_targets)
    gradients = torch.autograd.grad(loss, parameters)
    gradient_norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    row: dict[str, float | None] = {
        "step": step,
        "train_loss": loss.item(),
        "train_accuracy": _accuracy(outputs, data.train_targets, loss_fn),
        "test_loss": None,
        "test_accuracy": None,
        "gradient_norm": gradient_norm.item(),
    }
    if len(data.test_inputs):
        with torch.no_grad():
            outputs = model(data.test_inputs)
            row["test_loss"] = loss_fn(outputs, data.test_targets).item()
        row["test_accuracy"] = _accuracy(outputs, data.test_targets, loss_fn)
    return row


def _accuracy(outputs: Tensor, targets: Tensor, loss_fn: LossFunction) -> float | None:
    """Share of the labels that have the largest output; None where targets are no labels."""
    # Class labels stand in a tensor without the dimension of the classes, the second one.
    if targets.is_floating_point() or targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        return None
    is_label = targets != getattr(loss_fn, "ignore_index", -100)
    return (outputs.argmax(1) == targets)[is_label].double().mean().item()
