"""The state of an unfinished training, at every moment at which it can be killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from problems import network
from small_training import schedule, small_data
from torch import Tensor
from torch.nn import functional

from hesspipe.errors import DivergedError
from hesspipe.files import digest
from hesspipe.networks import training
from hesspipe.networks.training import Schedule, train
from hesspipe.networks.training_state import checkpoint_path

# SGD with records between checkpoints, so that states are written and forgotten.
OPTIONS = {"num_steps": 8, "record_every": 2, "checkpoint_every": 4, "batch_size": 8}


def run(folder: Path, options: Schedule) -> tuple[pd.DataFrame, list[Tensor]]:
    """Train a fresh network; its history and its parameters."""
    model = network([4, 5, 3])
    history = train(model, small_data(), options, seed=0, path_to_state=folder, progress=False)
    return history, [parameter.detach() for parameter in model.parameters()]


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a kill before or after each change of a file leaves on the disk."""
    folder, copies = (tmp_path_factory.mktemp(name) for name in ("state", "moments"))
    found: list[Path] = []

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            found.append(shutil.copytree(folder, copies / f"{len(found)}"))
            result = function(*arguments, **options)
            found.append(shutil.copytree(folder, copies / f"{len(found)}"))
            return result

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "fsync"):
            patch.setattr(os, name, around(getattr(os, name)))
        run(folder, schedule(**OPTIONS))
    return found


def saved(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step")) for path in folder.glob("step*.safetensors"))


def test_train_changes_files_at_many_moments(moments: list[Path]) -> None:
    # Otherwise the tests below could not fail: 5 records, each of two files and two calls.
    assert len(moments) >= 2 * 2 * 2 * 5
    assert {step for folder in moments for step in saved(folder)} == {0, 2, 4, 6, 8}


def test_train_has_no_history_ahead_of_its_checkpoints(moments: list[Path]) -> None:
    for folder in moments:
        path = folder / "history.json"
        if not path.exists():
            assert set(saved(folder)) <= {0}
            continue
        history = json.loads(path.read_text())
        steps = [int(step) for step in history["checkpoints"]]
        assert [row["step"] for row in history["rows"]] == list(range(0, max(steps) + 1, 2))
        assert set(saved(folder)) - {max(steps) + 2, max(steps) - 2} == set(steps) - {
            max(steps) - 2
        }
        for step in steps:
            known = history["checkpoints"][str(step)]
            assert digest(folder / f"step{step}.safetensors") == known


def test_train_keeps_each_record_until_the_next_is_written(moments: list[Path]) -> None:
    newest = 0
    for folder in moments:
        if steps := saved(folder):
            assert steps[-1] >= newest
            newest = steps[-1]
            assert set(steps) >= {step for step in (0, 4, 8) if step <= newest}
            assert len(steps) <= 4  # records between checkpoints are forgotten
        else:
            assert newest == 0


def test_train_resumes_from_every_moment_with_identical_results(
    moments: list[Path], tmp_path: Path
) -> None:
    options = schedule(**OPTIONS)
    expected, parameters = run(tmp_path / "undisturbed", options)
    for number, folder in enumerate(moments):
        place = shutil.copytree(folder, tmp_path / f"killed{number}")
        history, found = run(place, options)
        pd.testing.assert_frame_equal(history, expected, check_exact=True)
        assert all(torch.equal(*pair) for pair in zip(found, parameters, strict=True))
        for step in (0, 4, 8):
            name = f"step{step}.safetensors"
            assert (place / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_train_starts_again_where_the_history_cannot_be_read(tmp_path: Path) -> None:
    options = schedule(**OPTIONS)
    expected, _ = run(tmp_path, options)
    (tmp_path / "history.json").write_bytes(b"{}")
    history, _ = run(tmp_path, options)
    pd.testing.assert_frame_equal(history, expected, check_exact=True)


def root_of_distance(outputs: Tensor, targets: Tensor) -> Tensor:
    """The square root of a loss at its minimum: it is 0, its gradient is nan."""
    return functional.mse_loss(outputs, outputs.detach()).sqrt()


def test_train_refuses_a_gradient_that_is_not_finite_where_the_loss_is(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="at step 0 the norm of the gradient is nan"):
        train(
            network([4, 5, 3]), small_data(), schedule(), seed=0, path_to_state=tmp_path,
            loss_fn=root_of_distance, progress=False,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [1, 4, 5])
def test_train_stops_at_the_first_loss_that_is_not_finite(
    tmp_path: Path, step: int, bad: float
) -> None:
    calls = 0

    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        is_step = outputs.requires_grad and len(outputs) == 8
        calls += is_step
        loss = functional.cross_entropy(outputs, targets)
        return loss * bad if is_step and calls == step + 1 else loss

    with pytest.raises(DivergedError, match=f"at step {step} the loss is {bad}, with step_size"):
        train(
            network([4, 5, 3]), small_data(24), schedule(batch_size=8), seed=0,
            path_to_state=tmp_path, loss_fn=failing, progress=False,
        )  # fmt: skip
    assert max(saved(tmp_path)) == 3 * (step // 3)


def test_train_forgets_no_checkpoint_of_its_schedule(tmp_path: Path) -> None:
    options = schedule(num_steps=10, record_every=1, checkpoint_every=3)
    run(tmp_path, options)
    assert saved(tmp_path) == [0, 3, 6, 9, 10]
    assert checkpoint_path(tmp_path, 10).exists()


def test_batches_of_an_epoch_depend_on_its_number_alone() -> None:
    data, options = small_data(20), schedule(batch_size=8)
    epochs = [next(training._batches(data, options, 0, 3 * epoch))[0] for epoch in range(20)]
    assert len({tuple(batch.flatten().tolist()) for batch in epochs}) == 20
