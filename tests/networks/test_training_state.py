"""A state of a training is resumed only as far as all that belongs to it is as it was written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from kills import contents
from problems import network, normal
from small_training import schedule, small_data

from hesspipe.networks.training import train
from hesspipe.networks.training_state import TrainingState

OPTIONS = {"num_steps": 8, "record_every": 1, "checkpoint_every": 2, "batch_size": 8}
# Of each state that is resumed: 5 is the last record, the others are checkpoints.
FILES = ["history.json", *(f"step{step}.safetensors" for step in (0, 2, 4, 5))]


def run(folder: Path, seed: int = 0) -> tuple[pd.DataFrame, dict[str, bytes]]:
    """Train a fresh network; its history and its files."""
    model, options = network([4, 5, 3]), schedule(**OPTIONS)
    history = train(model, small_data(), options, seed=seed, path_to_state=folder, progress=False)
    return history, contents(folder)


def stop_at(step: int, folder: Path, seed: int = 0) -> Path:
    """Leave the state that a training has after the record of a step."""
    save = TrainingState.save

    def stopping(state: TrainingState, row: Any, *arguments: Any, **options: Any) -> None:
        save(state, row, *arguments, **options)
        if row["step"] == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(folder, seed)
    return folder


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Unfinished states, and the finished one."""
    folder = tmp_path_factory.mktemp("states")
    run(folder / "finished")
    return {
        "finished": folder / "finished",
        "state": stop_at(5, folder / "state"),
        "older": stop_at(3, folder / "older"),
        "newer": stop_at(7, folder / "newer"),
        "foreign": stop_at(5, folder / "foreign", seed=1),
    }


def write(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def flipped(share: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(share * len(content))] ^= 8
        return bytes(changed)

    return flip


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("")


def replace_by_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


FAULTS: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "empty": write(lambda content: b""),
    "half": write(lambda content: content[: len(content) // 2]),
    "longer": write(lambda content: content + b"\0"),
    "zeros": write(lambda content: bytes(len(content))),
    "text": write(lambda content: b"{}"),
    **{f"flipped at {share}": write(flipped(share)) for share in (0.0, 0.1, 0.5, 0.9, 0.999)},
    "a folder": replace_by_folder,
    "a dead link": replace_by_dead_link,
}


def check(
    folder: Path, states: dict[str, Path], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Train to the end: the same files and history, and one line that names the file."""
    history, found = run(folder)
    lines = [*caplog.messages]
    expected, whole = run(states["finished"])
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert found == whole
    [line] = lines
    assert "\n" not in line
    assert line.startswith(f"{folder / name} is ")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", FAULTS)
def test_train_tells_a_fault_in_its_state_and_ends_as_without_it(
    fault: str, name: str, states: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(states["state"], tmp_path / "state")
    FAULTS[fault](folder / name)
    check(folder, states, caplog, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("other", ["foreign", "newer", "older"])
def test_train_does_not_take_a_file_of_another_state_for_its_own(
    other: str, name: str, states: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, file = shutil.copytree(states["state"], tmp_path / "state"), states[other] / name
    if not file.exists():
        file = states[other] / "step2.safetensors"
    is_other = file.read_bytes() != (folder / name).read_bytes()
    shutil.copyfile(file, folder / name)
    if is_other:
        named = {"newer": "step6.safetensors", "older": "step3.safetensors"}.get(other, name)
        check(folder, states, caplog, named if name == "history.json" else name)
    else:
        run(folder)
        assert not caplog.messages


@pytest.mark.parametrize("other", ["foreign", "newer", "older"])
def test_train_with_files_of_two_states_ends_as_without_them(
    other: str, states: dict[str, Path], tmp_path: Path
) -> None:
    """Whatever the mixture: a backup that was copied back, or a folder of another training."""
    expected, whole = run(states["finished"])
    files = sorted({path.name for state in ("state", other) for path in states[state].iterdir()})
    for number in range(0, 2 ** len(files), 7):
        folder = tmp_path / str(number)
        folder.mkdir()
        for position, name in enumerate(files):
            source = states[other if number >> position & 1 else "state"] / name
            if source.exists():
                shutil.copyfile(source, folder / name)
        history, found = run(folder)
        assert found == whole
        pd.testing.assert_frame_equal(history, expected, check_exact=True)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("history.json", None), ("step0.safetensors", None), ("step2.safetensors", 0),
        ("step4.safetensors", 2), ("step5.safetensors", 4),
    ],
)  # fmt: skip
def test_resume_goes_back_to_the_last_step_that_is_proven_and_keeps_nothing_newer(
    name: str,
    step: int | None,
    states: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = shutil.copytree(states["state"], tmp_path / "state")
    training = json.loads((folder / "history.json").read_bytes())["training"]
    (folder / name).unlink()
    (folder / "mine.txt").write_text("of the user")
    (folder / ".step6.safetensors.0.tmp.safetensors").write_text("half of")
    state, model = TrainingState(folder, training), network([4, 5, 3])
    assert state.resume(model) == (step or 0)
    steps = [] if step is None else range(0, step + 1, 2)
    kept = {f"step{one}.safetensors" for one in steps} | ({"history.json"} if steps else set())
    assert {path.name for path in folder.iterdir()} == {*kept, "mine.txt"}
    assert [row["step"] for row in state.rows] == list(range(step or 0))
    fresh = network([4, 5, 3])
    pairs = zip(model.parameters(), fresh.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs) == (not step)
    [line] = caplog.messages
    # What is left is whole: the next start has nothing to tell.
    assert TrainingState(folder, training).resume(network([4, 5, 3])) == (step or 0)
    assert caplog.messages == [line]
    assert line.endswith("starts again" if step is None else f"goes back to step {step}")


def others() -> dict[str, dict[str, Any]]:
    data, model = small_data(), network([4, 5, 3])
    data.train_inputs[3, 1] += 1e-15
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-15
    return {
        "seed": {"seed": 1},
        "provenance": {"provenance": {"experiment": "other"}},
        "schedule": {"schedule": schedule(**OPTIONS, step_size=0.2)},
        "start": {"model": model},
        "data": {"data": data},
    }


@pytest.mark.parametrize("name", others())
def test_train_does_not_resume_another_training(
    name: str, states: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def settings() -> dict[str, Any]:
        own = {"model": network([4, 5, 3]), "data": small_data(), "schedule": schedule(**OPTIONS)}
        return {**own, "seed": 0, "progress": False, **others()[name]}

    expected = train(**settings(), path_to_state=tmp_path / "alone")
    folder = shutil.copytree(states["state"], tmp_path / "state")
    history = train(**settings(), path_to_state=folder)
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert contents(folder) == contents(tmp_path / "alone")
    assert caplog.messages == [
        f"{folder}/history.json is of another training; the training starts again"
    ]


def test_train_resumes_a_history_without_labels_or_held_out_data(tmp_path: Path) -> None:
    """Entries that are None stay None, whatever file they were in."""
    inputs = normal(12, 4)
    data = type(small_data())(inputs, normal(12, 3), inputs[:0], normal(0, 3), None)

    def history(folder: Path) -> pd.DataFrame:
        return train(
            network([4, 5, 3]), data, schedule(), seed=0, path_to_state=folder,
            loss_fn=torch.nn.functional.mse_loss, progress=False,
        )  # fmt: skip

    whole, resumed = history(tmp_path / "state"), history(tmp_path / "state")
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert resumed.dtypes.equals(whole.dtypes)
    assert resumed["test_loss"].tolist() == [None] * 5
