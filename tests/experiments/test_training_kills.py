"""A job of training that is killed anywhere gives the bytes of one that is not."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from kills import contents, run_and_kill, some_changes
from problems import labels, normal

from hesspipe import unfinished
from hesspipe.data.dataset import Dataset, write_dataset
from hesspipe.errors import DamagedFileError, InUseError
from hesspipe.experiments.training import TrainingRun
from hesspipe.tables.store import write_result

SETTINGS: dict[str, Any] = {
    "path_to_dataset": "data.safetensors",
    "experiment": "example",
    "seed": 0,
    "model": {"kind": "mlp", "hidden_widths": [4], "activation": "relu", "initial_std": 0.5},
    "training": {
        "algorithm": "sgd", "batch_size": 4, "step_size": 0.1, "num_steps": 3, "record_every": 1,
        "checkpoint_every": 2, "dtype": "float64",
    },
}  # fmt: skip
CHECKPOINTS = [f"out/step{step}.safetensors" for step in (0, 2, 3)]


def job() -> None:
    """What scripts/train.py does."""
    run = TrainingRun(**SETTINGS)
    with run.lock():
        write_result(run.train(progress=False), "out/history.parquet")
        run.collect_checkpoints(CHECKPOINTS)


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The outputs of an undisturbed job; the folder is as before it."""
    monkeypatch.chdir(tmp_path)
    data = Dataset(normal(12, 3), labels(12, 2), normal(4, 3), labels(4, 2), 2, {"kind": "mine"})
    write_dataset(data, "data.safetensors")
    job()
    outputs = contents("out")
    assert len(outputs) == 4
    shutil.rmtree("out")
    return outputs


def check(expected: dict[str, bytes]) -> None:
    assert contents("out") == expected
    assert os.listdir(".hesspipe/training") == []
    shutil.rmtree("out")


def test_job_killed_at_any_change_of_a_file_is_repeated_to_the_same_bytes(
    expected: dict[str, bytes],
) -> None:
    for number in some_changes(job, 6, 18):
        shutil.rmtree("out", ignore_errors=True)
        assert run_and_kill(job, number)
        if number % 2:  # Snakemake removes the outputs, if it is not killed, too
            shutil.rmtree("out", ignore_errors=True)
        job()
        check(expected)


def test_job_killed_twice_in_its_end_is_repeated_to_the_same_bytes(
    expected: dict[str, bytes],
) -> None:
    for first, second in [(50, 3), (55, 5), (58, 2), (60, 1), (62, 4)]:
        run_and_kill(job, first)
        run_and_kill(job, second)
        job()
        check(expected)


def test_job_removes_no_state_of_another_training(expected: dict[str, bytes]) -> None:
    neighbors = {
        ".hesspipe/training/0123456789abcdef/step0.safetensors": b"a state",
        ".hesspipe/training/0123456789abcdef/.step2.safetensors.0.tmp.safetensors": b"being made",
        ".hesspipe/training/.fedcba9876543210.removed/step0.safetensors": b"being removed",
        ".hesspipe/training/0123456789abcdef.lock": b"process 1",
    }
    for path, content in neighbors.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)
    job()
    assert contents("out") == expected
    assert {str(".hesspipe" / Path(path)) for path in contents(".hesspipe")} == set(neighbors)


def test_checkpoint_that_has_changed_before_the_end_is_not_published(
    expected: dict[str, bytes],
) -> None:
    run = TrainingRun(**SETTINGS)
    write_result(run.train(progress=False), "out/history.parquet")
    stored = run.path_to_state / "step2.safetensors"
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    with pytest.raises(DamagedFileError, match=str(stored)):
        run.collect_checkpoints(CHECKPOINTS)
    assert not Path("out/step2.safetensors").exists()
    job()  # needs nothing to be deleted
    check(expected)


def test_user_code_that_is_edited_in_a_training_does_not_lose_it(
    expected: dict[str, bytes],
) -> None:
    Path("code.py").write_text("factor = 1\n")
    run = TrainingRun(**SETTINGS, user_code=("code.py",))
    run.train(progress=False)
    Path("code.py").write_text("factor = 2\n")
    run.collect_checkpoints(CHECKPOINTS)
    assert contents("out").items() <= expected.items()
    assert os.listdir(".hesspipe/training") == []


def test_second_job_is_told_which_process_has_the_training(
    expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "_PATIENCE", 0.1)
    child = os.fork()
    if child == 0:
        with TrainingRun(**SETTINGS).lock():
            Path("locked").touch()
            time.sleep(60)
        os._exit(0)
    try:
        while not Path("locked").exists():
            time.sleep(0.001)
        with pytest.raises(InUseError, match=rf"is in use by process {child} on .*; wait ") as told:
            job()
        assert "\n" not in str(told.value)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    job()  # takes the lock over from the dead process
    check(expected)
