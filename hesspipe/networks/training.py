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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hesspipe.data.dataset import Dataset
from hesspipe.errors import DivergedError
from hesspipe.hardware import exact_kernels, name_exhaustion, reproducible_sums
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.networks.evaluation import loss_accuracy_and_slope, loss_and_accuracy
from hesspipe.networks.training_state import Row, TrainingState
from hesspipe.objective.batches import Batch
from hesspipe.objective.explanations import explained
from hesspipe.objective.reductions import LossFunction
from hesspipe.seeding import generator
from hesspipe.unfinished import lock, state_root


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


@name_exhaustion("the training", "use smaller batches or a smaller network")
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
    last record. Where a file of the state is missing, damaged or of another training, a line of the
    log names it, and training resumes from the last record before it, or starts again. On the same
    machine with the same number of threads, the result is bit-identical to that of an uninterrupted
    call.

    Parameters
    ----------
    model : nn.Module
        At its initial point; trained in place. Parameters that require no gradient stay as they
        are, and so do those that the loss does not depend on.
    data : Dataset
        In the model's dtype, on its device.
    schedule : Schedule
    seed : int
        Orders the batches.
    path_to_state : str or Path
        A folder for this training alone; see `hesspipe.networks.training_state`.
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
    InUseError
        If another process trains in this folder.
    """
    folder, provenance = Path(path_to_state), provenance or {}
    parameters: list[Tensor] = [each for each in model.parameters() if each.requires_grad]
    if not parameters:
        raise ValueError("model must have a parameter that requires a gradient, got none")
    every = schedule.checkpoint_every
    with lock(folder), reproducible_sums(data.train_inputs.device):
        state = TrainingState(folder, _digest(model, data, schedule, seed, provenance))
        start = state.resume(model)
        batches = _batches(data, schedule, seed, start)
        bar = _progress_bar(start, schedule.num_steps, progress)
        for step in bar:
            if schedule.is_due(step, schedule.record_every):
                row = _evaluate(model, data, loss_fn, step, schedule.num_recorded)
                _check_finite(row["gradient_norm"], "norm of the gradient", step, schedule, folder)
                bar.set_postfix(loss=f"{row['train_loss']:.3g}", refresh=False)
                records = [at for at in state.digests if not schedule.is_due(at, every)]
                state.save(row, Checkpoint.of(model, step, provenance), forget=records)
            if step == schedule.num_steps:
                break
            inputs, targets = next(batches)
            with explained(Batch(inputs, targets, 1.0), step, parameters[0].dtype):
                loss = loss_fn(model(inputs), targets)
                gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            _check_finite(loss.item(), "loss", step, schedule, folder)
            with torch.no_grad():
                torch._foreach_add_(parameters, gradients, alpha=-schedule.step_size)
    return pd.DataFrame(state.rows)


def _progress_bar(start: int, num_steps: int, is_shown: bool) -> tqdm[int]:
    return tqdm(
        range(start, num_steps + 1),
        initial=start,
        total=num_steps,
        desc="training",
        unit="step",
        disable=not is_shown,
        mininterval=1.0,
    )


def state_folder(specification: Mapping[str, Any]) -> Path:
    """Name the folder for the unfinished state of a training; equal specifications share it.

    Parameters
    ----------
    specification : mapping
        JSON-like: everything that affects the numbers.
    """
    text = json.dumps(specification, sort_keys=True)
    return Path(state_root(), "training", hashlib.sha256(text.encode()).hexdigest()[:16])


def _digest(
    model: nn.Module, data: Dataset, schedule: Schedule, seed: int, provenance: Mapping[str, Any]
) -> str:
    """Digest everything that decides the numbers, except the loss and the versions of packages."""
    settings = [asdict(schedule), seed, provenance]
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    start = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    samples = {field.name: getattr(data, field.name) for field in fields(data)}
    for name, tensor in (start | samples).items():
        if isinstance(tensor, Tensor):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


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
        order = torch.randperm(
            num_samples, generator=generator(seed, f"batches of epoch {epoch}"), device="cpu"
        )
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
    inputs, targets = data.train_inputs[:num_recorded], data.train_targets[:num_recorded]
    dtype = next(model.parameters()).dtype
    with explained(Batch(inputs, targets, 1.0), 0, dtype):
        train_loss, train_accuracy, gradient_norm = loss_accuracy_and_slope(
            model, inputs, targets, loss_fn
        )
    test_loss, test_accuracy = None, None
    if len(data.test_inputs):
        with explained(Batch(data.test_inputs, data.test_targets, 1.0), 0, dtype):
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
