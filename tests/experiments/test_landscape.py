"""Two parts of one training, and lines and planes through their ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from hesspipe.data.dataset import write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.experiments.landscape import align_units, evaluate_line, evaluate_plane
from hesspipe.experiments.loading import Solution, load_solution
from hesspipe.experiments.training import TrainingRun
from hesspipe.files import read_tensors, write_tensors
from hesspipe.landscape.alignment import permute_units
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.tables.queries import join_histories
from hesspipe.tables.store import Result, read_result, write_result

DATASET = {"kind": "mnist_digits", "source": "embedded", "folder": None, "num_train": 60, "seed": 0}
MODEL = {
    "kind": "alexnet", "channels": [3, 4, 5, 4, 3], "kernel_sizes": [5, 3, 3, 3, 3],
    "first_stride": 2, "pool_after": [1, 2, 5], "initial_gain": 2.0,
}  # fmt: skip
TRAINING = {
    "algorithm": "sgd", "batch_size": 30, "step_size": 0.05, "num_steps": 12, "record_every": 3,
    "checkpoint_every": 6, "num_recorded": 50, "dtype": "float32",
}  # fmt: skip
LINES = {"num_between": 4, "num_beyond": 2}
PATHS = [f"step{step}.safetensors" for step in (0, 6, 12)]


def a_run(part: str, seed: int, start: Path | None, **changes: Any) -> TrainingRun:
    return TrainingRun(
        path_to_dataset="data.safetensors", experiment=part, seed=seed, model=MODEL,
        training=TRAINING | changes, path_to_start=start,
    )  # fmt: skip


def run(part: str, seed: int, start: Path | None = None, **changes: Any) -> pd.DataFrame:
    """Train one part into its own folder, and write its history."""
    trained = a_run(part, seed, start, **changes)
    history, folder = trained.train(progress=False), Path(f"{part}{seed}")
    trained.collect_checkpoints([folder / path for path in PATHS])
    write_result(history, folder / "history.parquet")
    return history.table


def solution(path: str) -> Solution:
    return load_solution("data.safetensors", path, MODEL)


def aligned(path_to_reference: str, path_to_other: str) -> Checkpoint:
    return align_units(
        path_to_dataset="data.safetensors", path_to_reference=path_to_reference,
        path_to_other=path_to_other, model=MODEL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both parts of a training for two seeds."""
    folder = tmp_path_factory.mktemp("basins")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_dataset(make_dataset(**DATASET), "data.safetensors")
        for seed in (0, 1):
            run("lb", seed)
            run("sb", seed, Path(f"lb{seed}/step12.safetensors"), batch_size=4)
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_part_two_starts_at_the_end_of_part_one_to_the_last_bit() -> None:
    end, _ = read_tensors("lb0/step12.safetensors")
    start, header = read_tensors("sb0/step0.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in end)
    assert start.keys() == end.keys()
    assert '"starts_from": {"experiment": "lb", "step": 12}' in header["provenance"]
    histories = [pd.read_parquet(f"{part}0/history.parquet") for part in ("lb", "sb")]
    pd.testing.assert_series_equal(
        histories[0].iloc[-1].drop("step"), histories[1].iloc[0].drop("step"),
        check_names=False, check_exact=True,
    )  # fmt: skip


def test_parts_of_one_seed_see_batches_in_different_orders() -> None:
    # Otherwise a continuation with Part I's batch size would repeat the batches of Part I.
    first, _ = read_tensors("lb0/step12.safetensors")
    again = run("again", 0, Path("lb0/step0.safetensors"))
    found, _ = read_tensors("again0/step12.safetensors")
    assert len(again) == 5
    assert not all(torch.equal(found[name], first[name]) for name in first)


def test_unfinished_state_belongs_to_one_starting_point() -> None:
    runs = [
        a_run("sb", 0, start)
        for start in (None, Path("lb0/step6.safetensors"), Path("lb0/step12.safetensors"))
    ]
    assert len({trained.path_to_state for trained in runs}) == 3


def test_start_without_provenance_is_refused() -> None:
    tensors, _ = read_tensors("lb0/step12.safetensors")
    write_tensors(tensors, "bare.safetensors", {})
    bare = a_run("sb", 0, Path("bare.safetensors"))
    with pytest.raises(DamagedFileError, match=r"bare.safetensors .*it lacks 'parameters'"):
        bare.train(progress=False)


def test_line_meets_the_last_records_of_both_histories_to_the_last_bit() -> None:
    line = evaluate_line(
        path_to_dataset="data.safetensors", path_to_first="lb0/step12.safetensors",
        path_to_second="sb0/step12.safetensors", model=MODEL, lines=LINES,
    )  # fmt: skip
    table = line.table
    assert list(table["coefficient"]) == [-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
    for part, place in (("lb", 0.0), ("sb", 1.0)):
        record = pd.read_parquet(f"{part}0/history.parquet").iloc[-1]
        found = table[table["coefficient"] == place].iloc[0]
        for column in table.columns.drop("coefficient"):
            assert found[column] == record[column], (part, column)
    assert line.provenance["first"] == {"experiment": "lb", "seed": 0, "step": 12}
    assert line.provenance["second"] == {"experiment": "sb", "seed": 0, "step": 12}
    write_result(line, "line.parquet")


def test_align_units_gives_the_same_function_nearer_to_the_reference() -> None:
    paths = ["sb0/step12.safetensors", "sb1/step12.safetensors", "aligned.safetensors"]
    aligned(*paths[:2]).write(paths[2])
    reference, other, found = (solution(path) for path in paths)
    assert found.checkpoint.origin == {"experiment": "sb", "seed": 1, "step": 12, "aligned_to": 0}
    inputs = other.data.test_inputs[:50]
    expected = other.network(inputs)
    eps = torch.finfo(torch.float32).eps
    assert (found.network(inputs) - expected).abs().max() < 50 * eps * expected.abs().max()
    points = [end.checkpoint.theta.double() for end in (reference, other, found)]
    assert (points[2] - points[0]).norm() < (points[1] - points[0]).norm()
    assert torch.equal(points[2].sort().values, points[1].sort().values)


def test_align_units_finds_a_permuted_checkpoint_again() -> None:
    original = solution("sb0/step12.safetensors")
    random = np.random.default_rng(0)
    orders = [random.permutation(size) for size in MODEL["channels"]]
    permuted = permute_units(original.network, orders)
    Checkpoint.of(permuted, 12, original.checkpoint.provenance).write("permuted.safetensors")
    again = aligned("sb0/step12.safetensors", "permuted.safetensors")
    assert torch.equal(again.theta, original.checkpoint.theta)
    assert not torch.equal(Checkpoint.read("permuted.safetensors").theta, again.theta)


def test_plane_holds_the_three_ends_at_the_losses_of_their_records() -> None:
    grid, marked = a_plane()
    points = marked.table
    assert list(points["point"]) == ["path"] * 6 + ["large batch", "small batch", "other seed"]
    assert list(points["step"]) == [0, 6, 12, 12, 18, 24, 12, 24, 24]
    ends = points.tail(3).set_index("point")
    length = ends["first"].abs().max()
    assert (ends["distance"] < 1e-12 * length).all()
    assert tuple(ends.loc["large batch", ["first", "second"]]) == (0.0, 0.0)
    assert ends.loc["small batch", "first"] > 0
    assert points["distance"][0] > 0.1 * length  # the initial point is off the plane
    # The corners of the grid, in coordinates computed here: along the first axis, and across.
    paths = ["lb0/step12.safetensors", "sb0/step12.safetensors", "sb1/step12.safetensors"]
    solutions = [solution(path) for path in paths]
    origin, second, third = (end.checkpoint.theta.double() for end in solutions)
    along = (second - origin) / (second - origin).norm()
    across = (third - origin) - ((third - origin) @ along) * along
    across /= across.norm()
    network, data = solutions[0].network, solutions[0].data
    assert len(grid.table) == 9
    for row in grid.table.iloc[[0, 2, 6, 8]].itertuples():
        theta = (origin + row.first * along + row.second * across).float()
        torch.nn.utils.vector_to_parameters(theta, network.parameters())
        outputs = network(data.train_inputs[:50])
        loss = functional.cross_entropy(outputs, data.train_targets[:50]).item()
        assert row.train_loss == pytest.approx(loss, rel=1e-5)  # float32
    assert grid.provenance["third"] == {"experiment": "sb", "seed": 1, "step": 12}


def a_plane() -> tuple[Result, Result]:
    return evaluate_plane(
        path_to_dataset="data.safetensors",
        paths_to_parts=[[f"{part}0/{path}" for path in PATHS] for part in ("lb", "sb")],
        path_to_other="sb1/step12.safetensors", model=MODEL,
        planes={"num_points": 3, "margin": 0.0},
    )  # fmt: skip


def test_join_histories_counts_the_steps_of_both_parts() -> None:
    table = join_histories([read_result(f"{part}0/history.parquet") for part in ("lb", "sb")])
    assert list(table["step"]) == [0, 3, 6, 9, 12, 12, 15, 18, 21, 24]
    assert list(table["part"]) == [1] * 5 + [2] * 5
