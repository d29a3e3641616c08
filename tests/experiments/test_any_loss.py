"""Every stage between training and claims uses the experiment's own loss, on any kind of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hesspipe.claims.check import check_claim
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.data.dataset import Dataset, write_dataset
from hesspipe.experiments.landscape import align_units, evaluate_line, evaluate_plane
from hesspipe.experiments.loading import load_solution
from hesspipe.experiments.training import TrainingRun
from hesspipe.figures import basins, line, plane
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.tables import barriers
from hesspipe.tables.formats import format_table
from hesspipe.tables.store import Result, read_result, write_result

LINES = {"num_between": 2, "num_beyond": 1}
TRAINING: dict[str, Any] = {
    "algorithm": "sgd", "batch_size": 10, "step_size": 0.05, "num_steps": 6, "record_every": 3,
    "checkpoint_every": 3, "dtype": "float64",
}  # fmt: skip


def build(num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, num_outputs))


def weighted() -> nn.Module:
    return nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0]), label_smoothing=0.2)


def log_likelihood() -> Any:
    """A loss that is negative where the fit is good."""
    return lambda outputs, targets: 30 * (outputs - targets).square().mean() - 60.0


def classes(num_test: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40 + num_test, 3, generator=generator, dtype=torch.float64)
    labels = (inputs.sum(1) + 1.5).clamp(0, 2.9).long()
    return Dataset(inputs[:40], labels[:40], inputs[40:], labels[40:], None)


def values(num_test: int) -> Dataset:
    data = classes(num_test)
    train, test = (
        inputs.sum(1, keepdim=True).sin() for inputs in (data.train_inputs, data.test_inputs)
    )
    return Dataset(data.train_inputs, train, data.test_inputs, test, None)


CASES = {
    "label smoothing": (
        3, ("torch.nn:CrossEntropyLoss", {"label_smoothing": 0.3}), classes(20),
        nn.CrossEntropyLoss(label_smoothing=0.3),
    ),
    "class weights": (3, ("test_any_loss:weighted", {}), classes(20), weighted().double()),
    "a sum": (
        3, ("torch.nn:CrossEntropyLoss", {"reduction": "sum"}), classes(20),
        lambda outputs, targets: functional.cross_entropy(outputs, targets, reduction="sum"),
    ),
    "classes, nothing held out": (
        3, ("torch.nn:CrossEntropyLoss", {}), classes(0), functional.cross_entropy,
    ),
    "regression": (1, ("torch.nn:MSELoss", {}), values(20), functional.mse_loss),
    "regression, nothing held out": (
        1, ("torch.nn:HuberLoss", {"delta": 0.5}), values(0),
        lambda outputs, targets: functional.huber_loss(outputs, targets, delta=0.5),
    ),
    "a negative loss": (1, ("test_any_loss:log_likelihood", {}), values(20), log_likelihood()),
}  # fmt: skip


class Project:
    """Both parts of two seeds, with lines, an aligned network and a plane."""

    def __init__(self, name: str, folder: Path) -> None:
        num_outputs, (loss, arguments), self.data, self.loss_fn = CASES[name]
        self.model = {
            "kind": "user", "function": "test_any_loss:build",
            "arguments": {"num_outputs": num_outputs}, "loss": loss, "loss_arguments": arguments,
        }  # fmt: skip
        # A step of a summed loss is as many times as long.
        training = TRAINING | ({"step_size": 0.005} if name == "a sum" else {})
        write_dataset(self.data, folder / "data.safetensors")
        self.histories = []
        for seed in (0, 1):
            for part, start in (("lb", None), ("sb", f"lb{seed}/step6.safetensors")):
                run = TrainingRun(
                    path_to_dataset="data.safetensors", experiment=part, seed=seed,
                    model=self.model, training=training, path_to_start=start,
                )  # fmt: skip
                history = run.train(progress=False)
                run.collect_checkpoints(
                    [f"{part}{seed}/step{step}.safetensors" for step in (0, 3, 6)]
                )
                if seed == 0:
                    write_result(history, folder / f"{part}.parquet")
                    self.histories.append(read_result(folder / f"{part}.parquet"))
        common = {"path_to_dataset": "data.safetensors", "model": self.model}
        self.line = evaluate_line(
            path_to_first="lb0/step6.safetensors", path_to_second="sb0/step6.safetensors",
            lines=LINES, **common,
        )  # fmt: skip
        write_result(self.line, folder / "line.parquet")
        self.line = read_result(folder / "line.parquet", "line")
        align_units(
            path_to_reference="sb0/step6.safetensors", path_to_other="sb1/step6.safetensors",
            **common,
        ).write("aligned.safetensors")  # fmt: skip
        paths = [[f"{part}0/step{step}.safetensors" for step in (0, 3, 6)] for part in ("lb", "sb")]
        self.plane = evaluate_plane(
            paths_to_parts=paths, path_to_other="aligned.safetensors",
            planes={"num_points": 3, "margin": 0.1}, **common,
        )  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HESSPIPE_DEVICE", "cpu")
        patch.syspath_prepend(str(Path(__file__).parent))
        made = Project(request.param, folder)
        made.folder = folder
        return made


def expected(project: Project, theta: Tensor, half: str) -> float:
    """The loss computed here, at a point."""
    network = build(project.model["arguments"]["num_outputs"]).double()
    torch.nn.utils.vector_to_parameters(theta, network.parameters())
    inputs, targets = (getattr(project.data, f"{half}_{part}") for part in ("inputs", "targets"))
    return float(project.loss_fn(network(inputs), targets).detach())


def test_lines_have_the_experiments_loss(project: Project) -> None:
    ends = [
        Checkpoint.read(project.folder / f"{part}0/step6.safetensors").theta
        for part in ("lb", "sb")
    ]
    table = project.line.table
    for row in table.to_dict("records"):
        theta = (1 - row["coefficient"]) * ends[0] + row["coefficient"] * ends[1]
        assert row["train_loss"] == pytest.approx(expected(project, theta, "train"), rel=1e-12)
        if len(project.data.test_inputs):
            assert row["test_loss"] == pytest.approx(expected(project, theta, "test"), rel=1e-12)
        else:
            assert np.isnan(row["test_loss"])
            assert np.isnan(row["test_accuracy"])
        has_labels = not project.data.train_targets.is_floating_point()
        assert np.isnan(row["train_accuracy"]) == (not has_labels)
    # Both ends are the last records of both histories.
    for history, place in zip(project.histories, (0.0, 1.0), strict=True):
        found = table[table["coefficient"] == place].iloc[0]
        record = history.table.iloc[-1]
        for column in table.columns.drop("coefficient"):
            assert found[column] == record[column] or pd.isna([found[column], record[column]]).all()


def test_planes_have_the_experiments_loss(project: Project) -> None:
    grid, points = project.plane
    paths = "lb0/step6.safetensors", "sb0/step6.safetensors", "aligned.safetensors"
    origin, second, third = (Checkpoint.read(project.folder / path).theta for path in paths)
    along = (second - origin) / (second - origin).norm()
    across = (third - origin) - ((third - origin) @ along) * along
    across /= across.norm()
    for row in grid.table.itertuples():
        theta = origin + row.first * along + row.second * across
        assert row.train_loss == pytest.approx(expected(project, theta, "train"), rel=1e-9)
    assert len(points.table) == 9


def test_tables_and_figures_leave_out_what_is_not_there(project: Project) -> None:
    table = barriers.make_table([project.line], {})
    has_test = bool(len(project.data.test_inputs))
    assert table["loss"].tolist() == ["train", "test"][: 1 + has_test]
    assert table[["at_start", "at_end", "barrier", "place", "rise"]].notna().all(axis=None)
    assert "nan" not in format_table(table, barriers)["md"]
    has_labels = not project.data.train_targets.is_floating_point()
    for figure, module in (
        (line.make_figure([project.line], {}), "line"),
        (basins.make_figure(project.histories, {}), "basins"),
    ):
        assert len(figure.axes) == 1 + has_labels, module
        for axes in figure.axes:
            curves = [curve for curve in axes.lines if len(curve.get_xdata()) > 2]
            assert len(curves) == 1 + has_test
            assert all(np.isfinite(curve.get_ydata()).all() for curve in curves)
        assert figure.axes[0].get_ylabel() == "loss"
        losses = project.line.table if module == "line" else project.histories[0].table
        is_positive = (losses["train_loss"] > 0).all()
        assert (figure.axes[0].get_yscale() == "log") == is_positive
    assert plane.make_figure(project.plane, {}).axes[1].get_ylabel() == "training loss"


def test_claims_say_what_was_measured_in_strict_json(project: Project) -> None:
    results = {ResultKey(ResultKind.LANDSCAPE, "sb", 0, group="line"): project.line}
    has_test = bool(len(project.data.test_inputs))
    found = check_claim(results, kind="no_barrier", section="4", seeds=[0], max_rise=10.0)
    assert sorted(found["measured"]) == ["test_loss", "train_loss"][1 - has_test :]
    better = check_claim(results, kind="second_end_is_better", section="4", seeds=[0])
    is_known = has_test and not project.data.train_targets.is_floating_point()
    assert (better["verdict"] == "not measured") != is_known
    json.dumps([found, better], allow_nan=False)


def test_points_with_other_buffers_are_refused(project: Project) -> None:
    path = project.folder / "sb0/step6.safetensors"
    solution = load_solution(project.folder / "data.safetensors", path, project.model)
    solution.checkpoint.buffers["mean"] = torch.zeros(1)
    other = Checkpoint.read(path)
    other.buffers["mean"] = torch.ones(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hesspipe.experiments.loading.read_checkpoint", lambda *_: other)
        with pytest.raises(ValueError, match="must have equal buffers, got another mean in"):
            solution.read_others([path])


def test_results_are_of_the_kinds_that_are_stored(project: Project) -> None:
    for result in project.plane:
        assert isinstance(result, Result)
        write_result(result, project.folder / f"{result.kind}.parquet")
