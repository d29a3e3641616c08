"""A search that is killed anywhere, or finds a damaged state, gives the same bytes."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import contents, run_and_kill, some_changes
from problems import labels, normal

from hesspipe import unfinished
from hesspipe.curvature.operators import HessianOperator
from hesspipe.data.dataset import Dataset, write_dataset
from hesspipe.errors import InUseError, NotConvergedError
from hesspipe.experiments.matrix_free import find_eigenpairs
from hesspipe.experiments.training import TrainingRun
from hesspipe.linalg.search_state import SearchState
from hesspipe.tables.store import write_result

MODEL = {"kind": "mlp", "hidden_widths": [4], "activation": "tanh", "initial_std": 0.5}
TRAINING = {
    "algorithm": "gd", "step_size": 0.1, "num_steps": 1, "record_every": 1, "checkpoint_every": 1,
    "dtype": "float64",
}  # fmt: skip
SEARCH: dict[str, Any] = {
    "path_to_dataset": "data.safetensors",
    "path_to_checkpoint": "step1.safetensors",
    "model": MODEL,
    "matrix": "hessian",
    "dtype": "float64",
    "batch_size": None,
    "eigenpairs": {
        "num_smallest": 1, "num_largest": 2, "basis_size": 8, "tolerance": 1e-4,
        "max_products": 500, "seed": 0,
    },
}  # fmt: skip
STATES = Path(".hesspipe/eigenpairs")


def job(**changes: Any) -> None:
    """What scripts/find_eigenpairs.py does."""
    with find_eigenpairs(**SEARCH | changes) as result:
        write_result(result, "out/pairs.parquet")


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The result of an undisturbed job; the folder is as before it."""
    monkeypatch.chdir(tmp_path)
    data = Dataset(normal(12, 3), labels(12, 2), normal(4, 3), labels(4, 2), 2, {"kind": "mine"})
    write_dataset(data, "data.safetensors")
    run = TrainingRun(
        path_to_dataset="data.safetensors", experiment="example", seed=0, model=MODEL,
        training=TRAINING,
    )  # fmt: skip
    run.train(progress=False)
    run.collect_checkpoints(["step1.safetensors"])
    job()
    assert os.listdir(STATES) == []
    return Path("out/pairs.parquet").read_bytes()


def stop_after(number: int, **changes: Any) -> Path:
    """Leave the state that a search has saved for this time."""
    save, saved = SearchState.save, itertools.count(1)

    def stopping(state: SearchState) -> None:
        save(state)
        if next(saved) == number:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchState, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            job(**changes)
    [state] = STATES.glob("*.safetensors")
    return state


def test_search_killed_at_any_change_of_a_file_is_repeated_to_the_same_bytes(
    expected: bytes,
) -> None:
    for number in some_changes(job, 3, 5):
        assert run_and_kill(job, number)
        Path("out/pairs.parquet").unlink(missing_ok=True)
        job()
        assert Path("out/pairs.parquet").read_bytes() == expected, number
        assert os.listdir(STATES) == [], number


def test_search_is_kept_until_its_result_is_stored(
    expected: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError, match="full"), find_eigenpairs(**SEARCH):
        raise OSError(28, "the disk is full")
    [state] = STATES.iterdir()
    assert state.stat().st_size > 0
    job()
    assert Path("out/pairs.parquet").read_bytes() == expected
    assert os.listdir(STATES) == []
    assert not caplog.messages


def foreign(state: Path) -> None:
    """Copy the state of another search to this place."""
    own = state.read_bytes()
    state.unlink()
    shutil.copyfile(other := stop_after(1, matrix="ggn"), state)
    other.unlink()
    assert state.read_bytes() != own


FAULTS = {
    "truncated": lambda state: state.write_bytes(state.read_bytes()[:1000]),
    "empty": lambda state: state.write_bytes(b""),
    "flipped": lambda state: state.write_bytes(state.read_bytes()[:-1] + b"\x01"),
    "of another search": foreign,
    "of another checkpoint": lambda state: shutil.copyfile("step1.safetensors", state),
    "a folder": lambda state: (state.unlink(), state.mkdir()),
}


@pytest.mark.parametrize("name", FAULTS)
def test_search_never_needs_its_state_to_be_deleted(
    name: str, expected: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    state = stop_after(2)
    FAULTS[name](state)
    job()
    assert Path("out/pairs.parquet").read_bytes() == expected
    [line] = caplog.messages
    assert str(state) in line
    assert "\n" not in line
    assert os.listdir(STATES) == [f"{state.name}.damaged"]


def test_line_about_a_state_is_on_stderr_without_any_settings(
    expected: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's
    stop_after(1).write_bytes(b"")
    job()
    assert "cannot be resumed" in capsys.readouterr().err


def test_search_with_another_number_of_threads_starts_again(expected: bytes) -> None:
    # Sums in another order have other last bits.
    stop_after(3)
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads + 1)
        job()
    finally:
        torch.set_num_threads(num_threads)
    assert len(os.listdir(STATES)) == 1  # of the former number


def test_second_search_is_told_which_process_has_the_first(
    expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "_PATIENCE", 0.05)
    child = os.fork()
    if child == 0:
        with find_eigenpairs(**SEARCH):
            Path("found").touch()
            time.sleep(60)
        os._exit(0)
    try:
        while not Path("found").exists():
            time.sleep(0.001)
        with pytest.raises(InUseError, match=rf"in use by process {child} on"):
            job()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    job()
    assert contents("out") == {"pairs.parquet": expected}
    assert os.listdir(STATES) == []


def test_search_that_gave_up_goes_on_with_more_products(
    expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_made = 0
    multiply = HessianOperator.__matmul__

    def counted(*arguments: Any) -> Any:
        nonlocal num_made
        num_made += 1
        return multiply(*arguments)

    monkeypatch.setattr(HessianOperator, "__matmul__", counted)
    job()
    whole = num_made
    fewer = SEARCH["eigenpairs"] | {"max_products": whole // 2}
    with pytest.raises(NotConvergedError):
        job(eigenpairs=fewer)
    num_made = 0
    job()
    assert num_made < 0.8 * whole
    assert Path("out/pairs.parquet").read_bytes() == expected
    assert os.listdir(STATES) == []
