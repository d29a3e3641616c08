"""Descent with a constant step, GD and SGD, that resumes after a kill with identical results.

The update is theta <- theta - step_size * gradient, without momentum or decay, so the
parameters at a step are the whole state: a checkpoint and the (stateless) order of batches
are enough to resume with results that are equal to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hesspipe.data.dataset import Dataset
from hesspipe.errors import DamagedFileError, DivergedError
from hesspipe.files import atomic_path
from hesspipe.hardware import exact_kernels
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.networks.evaluation import loss_accuracy_and_slope, loss_and_accuracy
from hesspipe.objective.reductions import LossFunction
from hesspipe.seeding import generator

Row = dict[Any, Any]


@dataclass(frozen=True)
class Schedule:
    """How a network is trained, and which states are recorded and kept.

    Attributes
    ----------
    step_size : float
        Constant factor of the gradient of the mean loss.
    num_steps : int
        Updates.
    batch_size : int or None
        Samples in a batch; None is all of them (GD). The last batch of an epoch holds the
        remaining samples, and its gradient is the mean over them.
    record_every, checkpoint_every : int
        Steps between rows of the history, and between checkpoints; both also at the first and
        the last step.
    num_recorded : int or None
        Number of training samples, the first ones, that the history is measured on; None is all
        of them. Measuring on all of CIFAR-10 would cost as much as a hundred steps of training.
    """

    step_size: float
    num_steps: int
    batch_size: int | None
    record_every: int
    checkpoint_every: int
    num_recorded: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoint_every % self.record_every:
            raise ValueError(
                f"checkpoint_every must be a multiple of record_every ({self.record_every}), "
                f"got {self.checkpoint_every}"
            )

    def is_due(self, step: int, every: int) -> bool:
        """Return whether something that is done every so many steps is due at this step."""
        return step % every == 0 or step == self.num_steps


@exact_kernels()
def train(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    path_to_state: str | Path,
    loss_fn: LossFunction = nn.functional.cross_entropy,
    provenance: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Minimize a loss, keeping checkpoints on the way.

    If `path_to_state` holds the state of an earlier, interrupted call, training resumes from its
    last record. On the same machine with the same number of threads, the result is bit-identical
    to that of an uninterrupted call.

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
        A folder for this training alone: `step<step>.safetensors` for each checkpoint and for
        the last record, and `history.parquet`.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        The paper's is the mean cross-entropy.
    provenance : mapping, optional
        JSON-like; stored in every checkpoint.
    progress : bool
        Show a progress bar with the last recorded loss.

    Returns
    -------
    DataFrame
        step, train_loss, train_accuracy, test_loss, test_accuracy, gradient_norm; one row
        every `record_every` steps. Cross-entropies are means over samples, in nats; accuracies
        are in [0, 1]; gradient_norm is that of the loss over the recorded training samples.
        Entries that are undefined (without held-out data or class labels) are None.

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
            rows.append(_evaluate(model, data, loss_fn, step, schedule.num_recorded))
            _check_finite(rows[-1]["gradient_norm"], "norm of the gradient", step, schedule, folder)
            bar.set_postfix(loss=f"{rows[-1]['train_loss']:.3g}", refresh=False)
            _save(model, rows, folder, step, provenance or {})
            _forget_records_before(step, folder, schedule)
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
    """Name the folder for the unfinished state of a training; equal specifications share it.

    Parameters
    ----------
    specification : mapping
        JSON-like: everything that affects the numbers.
    """
    text = json.dumps(specification, sort_keys=True)
    return Path(".hesspipe", "training", hashlib.sha256(text.encode()).hexdigest()[:16])


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name the file of a step's checkpoint in a training's state."""
    return folder / f"step{step}.safetensors"


def _save(
    model: nn.Module,
    rows: list[Row],
    folder: Path,
    step: int,
    provenance: Mapping[str, Any],
) -> None:
    """Write the history first: a checkpoint is then never ahead of it."""
    with atomic_path(folder / "history.parquet") as temporary:
        pd.DataFrame(rows).to_parquet(temporary)
    Checkpoint.of(model, step, provenance).write(checkpoint_path(folder, step))


def _forget_records_before(step: int, folder: Path, schedule: Schedule) -> None:
    """Remove the states of earlier records, except checkpoints to keep."""
    for earlier in _saved_steps(folder):
        if earlier < step and not schedule.is_due(earlier, schedule.checkpoint_every):
            checkpoint_path(folder, earlier).unlink(missing_ok=True)


def _saved_steps(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step")) for path in folder.glob("step*.safetensors")]


def _resume(model: nn.Module, folder: Path) -> tuple[int, list[Row]]:
    """Load the newest readable checkpoint; return its step and the rows recorded before it."""
    for step in sorted(_saved_steps(folder), reverse=True):
        path = checkpoint_path(folder, step)
        try:
            checkpoint = Checkpoint.read(path)
            history = pd.read_parquet(folder / "history.parquet")
            checkpoint.into(model)
        except (DamagedFileError, OSError, ValueError):
            continue  # a disk that lost power; training from the previous one writes it again
        return step, history[history["step"] < step].to_dict("records")
    return 0, []


def _batches(
    data: Dataset, schedule: Schedule, seed: int, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Generate batches from step `start` on; an epoch's order depends on its number alone."""
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
    model: nn.Module, data: Dataset, loss_fn: LossFunction, step: int, num_recorded: int | None
) -> Row:
    """Measure one row of the history."""
    recorded = slice(num_recorded)
    train_loss, train_accuracy, gradient_norm = loss_accuracy_and_slope(
        model, data.train_inputs[recorded], data.train_targets[recorded], loss_fn
    )
    test_loss, test_accuracy = None, None
    if len(data.test_inputs):
        test_loss, test_accuracy = loss_and_accuracy(
            model, data.test_inputs, data.test_targets, loss_fn
        )
    return {
        "step": step,
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "gradient_norm": gradient_norm,
    }
