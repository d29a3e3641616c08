"""Training: the update, the order of batches, and resuming after a kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from problems import assert_close, network
from small_training import schedule, small_data
from torch.nn import functional

from hesspipe.data.dataset import Dataset
from hesspipe.errors import DamagedFileError, DivergedError
from hesspipe.files import read_tensors
from hesspipe.networks import training
from hesspipe.networks.checkpoints import Checkpoint, read_checkpoint
from hesspipe.networks.training import Schedule, train


def test_gradient_descent_follows_its_formula(tmp_path: Path) -> None:
    data, model, expected = small_data(), network([4, 5, 3]), network([4, 5, 3])
    train(model, data, schedule(num_steps=6), seed=0, path_to_state=tmp_path, progress=False)
    for _ in range(6):
        loss = functional.cross_entropy(expected(data.train_inputs), data.train_targets)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(expected.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    for found, right in zip(model.parameters(), expected.parameters(), strict=True):
        assert_close(found.detach(), right.detach())


def test_history_holds_losses_accuracies_and_the_gradient(tmp_path: Path) -> None:
    data, model = small_data(), network([4, 5, 3])
    history = train(model, data, schedule(), seed=0, path_to_state=tmp_path, progress=False)
    last = history.iloc[-1]
    outputs = model(data.train_inputs)
    loss = functional.cross_entropy(outputs, data.train_targets)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    correct = outputs.argmax(1) == data.train_targets
    assert list(history["step"]) == [0, 3, 6, 9, 12]
    assert last["train_loss"] == loss.item()
    assert last["train_accuracy"] == correct.double().mean().item()
    assert last["gradient_norm"] == pytest.approx(norm.item(), rel=1e-12)
    test_loss = functional.cross_entropy(model(data.test_inputs), data.test_targets)
    assert last["test_loss"] == test_loss.item()
    assert history["train_loss"].is_monotonic_decreasing


def test_checkpoints_are_kept_at_both_ends_and_periodically(tmp_path: Path) -> None:
    model = network([4, 5, 3])
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    options = schedule(num_steps=15)
    train(model, small_data(), options, seed=0, path_to_state=tmp_path, progress=False)
    assert {path.name for path in tmp_path.glob("step*.safetensors")} == {
        f"step{step}.safetensors" for step in (0, 6, 12, 15)
    }
    first = Checkpoint.read(tmp_path / "step0.safetensors")
    assert first.step == 0
    assert all(torch.equal(first.parameters[name], start[name]) for name in start)
    last = read_checkpoint(tmp_path / "step15.safetensors", model)
    assert all(
        torch.equal(last.parameters[name], value) for name, value in model.named_parameters()
    )


def test_every_epoch_holds_each_sample_once_in_a_new_order() -> None:
    data = small_data(20)
    batches = training._batches(data, schedule(batch_size=8), seed=0, start=0)
    sizes, epochs = [], []
    for _ in range(2):
        epoch = [next(batches)[0] for _ in range(3)]
        sizes.append([len(inputs) for inputs in epoch])
        epochs.append(torch.cat(epoch))
    assert sizes == [[8, 8, 4], [8, 8, 4]]
    for epoch in epochs:
        assert torch.equal(epoch.sort(dim=0).values, data.train_inputs.sort(dim=0).values)
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_batches_can_be_entered_at_any_step(start: int) -> None:
    data, options = small_data(20), schedule(batch_size=8)
    whole = training._batches(data, options, seed=0, start=0)
    for _ in range(start):
        next(whole)
    late = training._batches(data, options, seed=0, start=start)
    for _ in range(5):
        assert all(torch.equal(*pair) for pair in zip(next(whole), next(late), strict=True))


def test_seed_orders_the_batches() -> None:
    data, options = small_data(20), schedule(batch_size=8)
    one, other = (next(training._batches(data, options, seed=seed, start=0))[0] for seed in (0, 1))
    assert not torch.equal(one, other)


PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1]]
import torch
from problems import network
from small_training import schedule, small_data
from hesspipe.networks.training import train
torch.set_num_threads(1)
model = network([4, 16, 16, 3], std=0.3)
options = schedule(num_steps=3000, record_every=10,
                   checkpoint_every=100)
history = train(model, small_data(), options, seed=0, path_to_state=sys.argv[2], progress=False)
history.to_parquet(sys.argv[2] + "/done.parquet")
"""


def test_killed_training_resumes_with_identical_results(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1])]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run([*command, str(undisturbed)], check=True)
    num_kills = 0
    for milestone in (300, 1500):
        with subprocess.Popen([*command, str(killed)]) as process:
            while not (killed / f"step{milestone}.safetensors").exists():
                assert process.poll() is None
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            num_kills += 1
        assert not (killed / "done.parquet").exists()
    started = time.time()
    subprocess.run([*command, str(killed)], check=True)
    # It was resumed: files that existed before the last start were not written again.
    assert (killed / "step1000.safetensors").stat().st_mtime < started
    assert num_kills == 2
    for path in undisturbed.glob("step*.safetensors"):
        assert path.read_bytes() == (killed / path.name).read_bytes(), path.name
    histories = [pd.read_parquet(folder / "done.parquet") for folder in (undisturbed, killed)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


KILLED_ANYWHERE = """
import sys
sys.path[:0] = [sys.argv[1]]
import torch
from problems import labels, normal
from small_training import schedule
from hesspipe.data.dataset import Dataset
from hesspipe.networks.architectures import alexnet, initialize_scaled
from hesspipe.networks.training import train
torch.set_num_threads(1)
data = Dataset(normal(60, 1, 8, 8), labels(60, 3), normal(20, 1, 8, 8, seed=3), labels(20, 3), 3)
model = alexnet(input_shape=(1, 8, 8), channels=[3, 4, 4, 4, 3], kernel_sizes=[3, 3, 3, 3, 3],
                first_stride=1, pool_after=[1, 5], num_outputs=3)
initialize_scaled(model, 2.0, torch.Generator().manual_seed(0))
options = schedule(num_steps=900, batch_size=8, record_every=15, checkpoint_every=300,
                   num_recorded=50, step_size=0.05)
data = data.to(torch.float32, torch.device("cpu"))
history = train(model, data, options, seed=0, path_to_state=sys.argv[2], progress=False)
history.to_parquet(sys.argv[2] + "/done.parquet")
"""


def test_training_killed_three_times_at_random_moments_has_the_same_history(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", KILLED_ANYWHERE, str(Path(__file__).parents[1])]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    started = time.monotonic()
    subprocess.run([*command, str(undisturbed)], check=True)
    duration = time.monotonic() - started
    moments = random.Random(0)
    num_kills = 0
    while num_kills < 3:
        saved = sorted(killed.glob("step*.safetensors"))
        with subprocess.Popen([*command, str(killed)]) as process:
            # Only after it has resumed from the previous state; from then on at any moment.
            while sorted(killed.glob("step*.safetensors")) == saved:
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(moments.uniform(0, duration / 20))
            process.kill()
            assert process.wait() == -signal.SIGKILL
            num_kills += 1
    assert not (killed / "done.parquet").exists()
    subprocess.run([*command, str(killed)], check=True)
    histories = [pd.read_parquet(folder / "done.parquet") for folder in (undisturbed, killed)]
    assert len(histories[0]) == 61
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    names = {path.name for path in undisturbed.glob("step*.safetensors")}
    assert names == {f"step{step}.safetensors" for step in (0, 300, 600, 900)}
    assert names == {path.name for path in killed.glob("step*.safetensors")}
    for name in names:
        assert (undisturbed / name).read_bytes() == (killed / name).read_bytes()


def test_training_resumes_from_its_last_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, options = small_data(), schedule(num_steps=30, checkpoint_every=30)
    starts: list[int] = []
    batches = training._batches

    def watched(data: Dataset, schedule: Schedule, seed: int, start: int) -> Any:
        starts.append(start)
        for number, batch in enumerate(batches(data, schedule, seed, start), start):
            if number == 20 and len(starts) == 1:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(training, "_batches", watched)
    with pytest.raises(KeyboardInterrupt):
        train(network([4, 5, 3]), data, options, seed=0, path_to_state=tmp_path, progress=False)
    # Stopped at step 20; the last record was at 18, and of those before it only step 0 is kept.
    names = {path.name for path in tmp_path.glob("step*.safetensors")}
    assert names == {"step0.safetensors", "step18.safetensors"}
    train(network([4, 5, 3]), data, options, seed=0, path_to_state=tmp_path, progress=False)
    assert starts == [0, 18]


def test_history_is_measured_on_the_first_num_recorded_samples(tmp_path: Path) -> None:
    data, model = small_data(), network([4, 5, 3])
    options = schedule(num_recorded=7)
    last = train(model, data, options, seed=0, path_to_state=tmp_path, progress=False).iloc[-1]
    loss = functional.cross_entropy(model(data.train_inputs[:7]), data.train_targets[:7])
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert last["train_loss"] == loss.item()
    assert last["gradient_norm"] == pytest.approx(norm.item(), rel=1e-12)
    test_loss = functional.cross_entropy(model(data.test_inputs), data.test_targets)
    assert last["test_loss"] == test_loss.item()


def test_damaged_newest_checkpoint_is_skipped(tmp_path: Path) -> None:
    data, folders = small_data(), [tmp_path / "whole", tmp_path / "damaged"]
    for folder in folders:
        train(network([4, 5, 3]), data, schedule(), seed=0, path_to_state=folder, progress=False)
    newest = folders[1] / "step12.safetensors"
    newest.write_bytes(newest.read_bytes()[:50])
    model = network([4, 5, 3])
    train(model, data, schedule(), seed=0, path_to_state=folders[1], progress=False)
    assert newest.read_bytes() == (folders[0] / newest.name).read_bytes()


def test_divergence_names_step_loss_and_step_size_and_keeps_checkpoints(tmp_path: Path) -> None:
    model = network([4, 5, 3])
    options = schedule(step_size=1e200, checkpoint_every=3)
    with pytest.raises(
        DivergedError, match=r"at step \d+ the .* is (nan|inf), with step_size 1e\+200.*kept in"
    ):
        train(model, small_data(), options, seed=0, path_to_state=tmp_path, progress=False)
    for path in tmp_path.glob("step*.safetensors"):
        tensors, _ = read_tensors(path)
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert (tmp_path / "step0.safetensors").exists()


@pytest.mark.parametrize("widths", [[4, 6, 3], [4, 5, 5, 3]])
def test_checkpoint_of_another_model_is_refused(tmp_path: Path, widths: list[int]) -> None:
    train(
        network([4, 5, 3]), small_data(), schedule(), seed=0, path_to_state=tmp_path, progress=False
    )
    path = tmp_path / "step0.safetensors"
    with pytest.raises(
        DamagedFileError,
        match=r"step0.safetensors .*the checkpoint must be of this network, but it",
    ):
        read_checkpoint(path, network(widths))


def test_schedule_refuses_checkpoints_without_a_record() -> None:
    with pytest.raises(ValueError, match=r"multiple of record_every \(3\), got 4"):
        schedule(checkpoint_every=4)


class _Partial(torch.nn.Module):
    """A network with a frozen layer and a layer that the loss does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen, self.used, self.unused = (torch.nn.Linear(3, 3).double() for _ in range(3))
        self.frozen.requires_grad_(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.used(torch.tanh(self.frozen(inputs)))
        return outputs


def test_train_moves_only_parameters_that_the_loss_depends_on(tmp_path: Path) -> None:
    inputs = torch.linspace(-1, 1, 30, dtype=torch.float64).view(10, 3)
    targets = torch.arange(10) % 3
    data = Dataset(inputs, targets, inputs[:0], targets[:0], num_classes=3)
    model, before = _Partial(), _Partial()
    run = Schedule(0.1, 3, None, record_every=1, checkpoint_every=3)
    train(model, data, run, seed=0, path_to_state=tmp_path / "state", progress=False)
    optimizer = torch.optim.SGD(before.used.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(before(inputs), targets).backward()
        optimizer.step()
    for (name, found), expected in zip(model.named_parameters(), before.parameters(), strict=True):
        assert_close(found.detach(), expected.detach())
        assert name.startswith("used") or torch.equal(found, expected)


@pytest.mark.parametrize("model", [torch.nn.Flatten(), network([3, 3]).requires_grad_(False)])
def test_train_refuses_a_network_that_cannot_vary(tmp_path: Path, model: torch.nn.Module) -> None:
    inputs = torch.ones(4, 3)
    data = Dataset(inputs, torch.zeros(4).long(), inputs[:0], inputs[:0, 0], num_classes=3)
    run = Schedule(0.1, 3, None, record_every=1, checkpoint_every=3)
    with pytest.raises(ValueError, match="a parameter that requires a gradient, got none"):
        train(model, data, run, seed=0, path_to_state=tmp_path / "state", progress=False)
