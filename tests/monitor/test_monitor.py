"""The monitor, against matrices of torch.func, and trainings with and without it."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from monitor_training import LOSS, data, exact_hessian, mlp, noisy, objective_of, train
from torch import nn

import hesspipe
from hesspipe import Monitor, Objective
from hesspipe.figures.over_training import make_figure
from hesspipe.tables.monitor import by_step
from hesspipe.tables.store import read_result

OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.3),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.02),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.02),
    "groups": lambda model: torch.optim.Adam(
        [{"params": [*model.parameters()][:2], "lr": 0.01}, {"params": [*model.parameters()][2:]}],
        lr=0.03,
    ),
}


def scaled(matrix: torch.Tensor, model: nn.Module, optimizer: torch.optim.Optimizer):
    """D H D for Adam, written out."""
    parts = []
    for group in optimizer.param_groups:
        for each in group["params"]:
            state = optimizer.state[each]
            corrected = state["exp_avg_sq"].double() / (1 - 0.999 ** float(state["step"]))
            ratio = group["lr"] / max(other["lr"] for other in optimizer.param_groups)
            parts.append((ratio / (corrected.sqrt() + 1e-8)).flatten())
    root = torch.cat(parts).sqrt()
    return root[:, None] * matrix * root


@pytest.mark.parametrize("make", [mlp, noisy])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_monitor_records_what_dense_matrices_say(make, name):
    model = make()
    optimizer = OPTIMIZERS[name](model)
    monitor = Monitor(objective_of(model), model, optimizer, every=4, num_largest=2, tolerance=1e-7,
                      preconditioned=True, max_products=200, verify_every=1)  # fmt: skip
    expected = []

    def look(step):
        if step % 4 == 0:
            matrix = exact_hessian(model, *data())
            values = torch.linalg.eigvalsh(matrix)
            top = float(values[-1])
            if "betas" in optimizer.param_groups[0]:
                top = float(torch.linalg.eigvalsh(scaled(matrix, model, optimizer))[-1])
            expected.append([*values[[0, -2, -1]].tolist(), top])

    train(model, optimizer, 12, monitor, look)
    table = monitor.table
    assert table["is_converged"].all()
    found = table["eigenvalue"].to_numpy().reshape(3, 3)
    assert found == pytest.approx(np.array(expected)[:, :3], rel=1e-6)
    sharpness = table["preconditioned_sharpness"].to_numpy()[::3]
    assert sharpness == pytest.approx(np.array(expected)[:, 3], rel=1e-6)
    limit = {"sgd": 2 / 0.3, "momentum": 38, "groups": 38 / 0.03}.get(name, 38 / 0.02)
    assert table["stability_limit"].unique() == pytest.approx(limit)
    assert table["step"].tolist() == [4] * 3 + [8] * 3 + [12] * 3


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_training_is_the_same_to_the_last_bit_with_a_monitor(tmp_path, name):
    ends = []
    for has_monitor in (False, True):
        model = noisy()
        optimizer = OPTIMIZERS[name](model)
        monitor = None
        if has_monitor:
            monitor = Monitor(objective_of(model, dtype=torch.float32), model, optimizer, every=1,
                              preconditioned=True, critical=True, trace_products=6,
                              path=tmp_path / "table.parquet")  # fmt: skip
            monitor.record()
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002 (the state that a training may use)
        gradients = []
        train(model, optimizer, 6, monitor,
              lambda _: gradients.append(model[0].weight.grad.clone()))  # noqa: B023 # fmt: skip
        ends.append(
            [*model.state_dict().values(), *gradients, torch.get_rng_state(),
             torch.tensor(np.random.rand()), torch.tensor(model.training)]  # noqa: NPY002
        )  # fmt: skip
        ends[-1] += [value for state in optimizer.state.values() for value in state.values()]
    for one, other in zip(*ends, strict=True):
        assert one is other or torch.equal(one, other)


def test_critical_sharpness_is_that_of_the_last_update():
    """Of full-batch descent on a quadratic, it is g^T H g / g^T g."""
    inputs = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
    targets = torch.zeros(10, 1).double()
    model = nn.Linear(3, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    objective = Objective(model, nn.MSELoss(), (inputs, targets))
    monitor = Monitor(objective, model, optimizer, every=3, critical=True)
    for step in range(1, 4):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        slope = torch.cat([part.grad.flatten() for part in model.parameters()])
        optimizer.step()
        monitor.step(step)
    rows = torch.cat([inputs, torch.ones(10, 1)], dim=1).double()
    matrix = 2 / 10 * rows.T @ rows
    expected = float(slope @ matrix @ slope / (slope @ slope))
    assert monitor.table["critical_sharpness"].iloc[0] == pytest.approx(expected, rel=2e-3)


def test_trace_lies_within_its_standard_error():
    model = mlp()
    monitor = Monitor(objective_of(model), model, every=1, trace_products=12)
    monitor.record()
    row = monitor.table.iloc[0]
    expected = float(exact_hessian(model, *data()).trace())
    assert abs(row["trace"] - expected) <= 4 * row["trace_error"]


def test_monitor_follows_buffers_and_frozen_parameters():
    """A frozen layer that is loaded anew, and statistics of batch normalization."""
    model = noisy()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    monitor = Monitor(objective_of(model), model, optimizer, every=5, tolerance=1e-7,
                      max_products=200)  # fmt: skip
    train(model, optimizer, 3)
    model[0].load_state_dict({key: 2 * part for key, part in model[0].state_dict().items()})
    monitor.record(3)
    matrix = exact_hessian(model, *data())[40:, 40:]
    values = torch.linalg.eigvalsh(matrix)[[0, -1]].tolist()
    assert monitor.table["eigenvalue"].tolist() == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize("wrap", ["compiled", "parallel", "replaced", "layer"])
def test_monitor_finds_the_parameters_of_wrapped_models(wrap):
    model = mlp()
    objective = objective_of(model)
    trained: nn.Module = model
    if wrap == "compiled":
        trained = torch.compile(model, backend="eager")
    elif wrap == "parallel":
        trained = nn.DataParallel(model)
    elif wrap == "layer":
        model[0] = torch.compile(model[0], backend="eager")
    monitor = Monitor(objective, trained, every=1, tolerance=1e-7)
    if wrap == "replaced":
        model[2].weight = nn.Parameter(3 * model[2].weight.detach())
    monitor.record(0)
    plain = mlp()
    if wrap == "replaced":
        plain[2].weight.data *= 3
    values = torch.linalg.eigvalsh(exact_hessian(plain, *data()))[[0, -1]].tolist()
    assert monitor.table["eigenvalue"].tolist() == pytest.approx(values, rel=1e-6)


def test_monitor_reads_streamed_data_again():
    model = mlp()
    model.eval()
    inputs, targets = data()
    loader = [(inputs[:10], targets[:10]), (inputs[10:], targets[10:])]
    monitor = Monitor(Objective(model, LOSS, loader, stream=True), model, every=1, tolerance=1e-7)
    with torch.no_grad():
        model[0].weight.mul_(2)
    monitor.step()
    values = torch.linalg.eigvalsh(exact_hessian(model, inputs, targets))[[0, -1]].tolist()
    assert monitor.table["eigenvalue"].tolist() == pytest.approx(values, rel=1e-6)


def test_monitor_takes_any_loss_over_any_batches():
    model = mlp()
    inputs, targets = data()
    batches = [{"x": inputs[:10], "y": targets[:10]}, {"x": inputs[10:], "y": targets[10:]}]
    objective = Objective.from_batches(
        model, lambda net, batch: LOSS(net(batch["x"]), batch["y"]), batches,
        num_samples=lambda batch: len(batch["x"]),
    )  # fmt: skip
    optimizer = OPTIMIZERS["sgd"](model)
    monitor = Monitor(objective, model, optimizer, every=2, tolerance=1e-7)
    train(model, optimizer, 2, monitor)
    values = torch.linalg.eigvalsh(exact_hessian(model, inputs, targets))[[0, -1]].tolist()
    assert monitor.table["eigenvalue"].tolist() == pytest.approx(values, rel=1e-6)


def test_monitor_is_exact_under_autocast_and_inference_mode():
    model = mlp()
    monitor = Monitor(objective_of(model), model, every=1, tolerance=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        monitor.record(0)
    values = torch.linalg.eigvalsh(exact_hessian(model, *data()))[[0, -1]].tolist()
    assert monitor.table["eigenvalue"].tolist() == pytest.approx(values, rel=1e-6)


def test_monitor_leaves_empty_rows_where_a_training_diverges(tmp_path):
    model = mlp()
    path = tmp_path / "table.parquet"
    monitor = Monitor(objective_of(model), model, every=1, path=path)
    monitor.step()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.warns(RuntimeWarning, match="step 2 failed: the loss is nan"):
        monitor.step()
    table = read_result(path, "monitor").table
    assert table["step"].tolist() == [1, 1, 2, 2]
    assert table["eigenvalue"].notna().tolist() == [True, True, False, False]
    assert [result.provenance["step"] for result in by_step(monitor.result)] == [1]


def test_monitor_raises_if_asked_to():
    model = mlp()
    monitor = Monitor(objective_of(model), model, every=1, on_error="raise")
    with torch.no_grad():
        model[0].weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="the loss is"):
        monitor.step()


def test_monitor_outlives_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    model = mlp()
    monitor = Monitor(objective_of(model), model, every=1, path=tmp_path / "file" / "t.parquet")
    with pytest.warns(RuntimeWarning, match="made, but not written"):
        monitor.step()
    assert monitor.table["eigenvalue"].notna().all()


def test_monitor_continues_its_file_without_duplicates(tmp_path):
    path = tmp_path / "table.parquet"

    def begin():
        model = mlp()
        optimizer = OPTIMIZERS["sgd"](model)
        torch.manual_seed(1)
        return model, optimizer

    model, optimizer = begin()
    train(model, optimizer, 6, Monitor(objective_of(model), model, optimizer, every=2, path=path))
    before = read_result(path).table
    model, optimizer = begin()
    train(model, optimizer, 3)  # the checkpoint
    monitor = Monitor(objective_of(model), model, optimizer, every=2, path=path)
    with pytest.raises(ValueError, match="number of updates"):
        monitor.step()
    for step in range(4, 9):
        inputs, targets = data()
        chosen = torch.randperm(len(inputs))[:8]
        optimizer.zero_grad()
        LOSS(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
        monitor.step(step)
    table = read_result(path, "monitor").table
    assert table["step"].tolist() == [2, 2, 4, 4, 6, 6, 8, 8]
    assert table["eigenvalue"][:6].to_numpy() == pytest.approx(
        before["eigenvalue"].to_numpy(), rel=1e-3
    )


def test_monitor_refuses_the_file_of_another(tmp_path):
    path = tmp_path / "table.parquet"
    model = mlp()
    Monitor(objective_of(model), model, every=1, path=path).step()
    with pytest.raises(ValueError, match="num_largest 1 instead of 2"):
        Monitor(objective_of(model), model, num_largest=2, path=path)


def test_figure_over_training_draws_the_table(tmp_path):
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    path = tmp_path / "table.parquet"
    monitor = Monitor(objective_of(model), model, optimizer, every=3, num_largest=2, path=path)
    train(model, optimizer, 9, monitor)
    figure = make_figure([read_result(path)], {"num_largest": 2, "num_smallest": 1})
    left, right = figure.axes
    largest = monitor.table.query("end == 'largest'")
    drawn = [line.get_ydata() for line in left.lines]
    assert np.allclose(drawn[0], largest["eigenvalue"][1::2])
    assert np.allclose(drawn[1], largest["eigenvalue"][0::2])
    assert left.lines[0].get_xdata().tolist() == [3, 6, 9]
    smallest = -monitor.table.query("end == 'smallest'")["eigenvalue"]
    assert np.allclose(right.lines[0].get_ydata(), smallest[smallest > 0])


def test_figure_has_no_axes_for_an_end_that_is_not_recorded():
    model = mlp()
    monitor = Monitor(objective_of(model), model, every=1, num_smallest=0)
    monitor.step()
    assert [axes.get_title(loc="left") for axes in monitor.figure().axes] == ["the 1 largest"]


def test_monitors_of_two_models_do_not_mix():
    """A loop with a generator and a discriminator, each with its optimizer and monitor."""
    models = [mlp(0), mlp(1)]
    optimizers = [OPTIMIZERS["adam"](model) for model in models]
    monitors = [
        Monitor(objective_of(model), model, every=2, tolerance=1e-7, max_products=90)
        for model in models
    ]
    for monitor, model, optimizer in zip(monitors, models, optimizers, strict=True):
        monitor.adopt_optimizer(optimizers)
        assert monitor.optimizer is optimizer
        train(model, optimizer, 2, monitor)
        top = float(torch.linalg.eigvalsh(exact_hessian(model, *data()))[-1])
        assert monitor.table["eigenvalue"].iloc[-1] == pytest.approx(top, rel=1e-6)


def test_schedules_change_the_limit():
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    monitor = Monitor(objective_of(model), model, optimizer, every=2)
    train(model, optimizer, 4, monitor, lambda _: schedule.step())
    limits = monitor.table["stability_limit"].unique()
    assert limits == pytest.approx([2 / 0.3, 4 / 0.3])


def test_optimizers_without_a_known_limit_are_named_once():
    model = mlp()
    optimizer = torch.optim.Adadelta(model.parameters())
    monitor = Monitor(objective_of(model), model, optimizer, every=1)
    with pytest.warns(RuntimeWarning, match="Adadelta is not known"):
        monitor.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.step()
    assert monitor.table["stability_limit"].isna().all()
    assert monitor.table["preconditioned_sharpness"].isna().all()
    assert monitor.table["eigenvalue"].notna().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every must be"),
        ({"num_smallest": 0, "num_largest": 0}, "num_smallest . num_largest must be 1"),
        ({"num_largest": 1000}, "must be 1 to P = 51"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"trace_products": 3}, "trace_products must be 0"),
        ({"on_error": "ignore"}, "on_error must be"),
    ],
)
def test_monitor_refuses_arguments_out_of_range(options, words):
    model = mlp()
    with pytest.raises(ValueError, match=words):
        Monitor(objective_of(model), model, **options)


def test_monitor_refuses_another_model():
    with pytest.raises(ValueError, match=r"0.weight of shape \(6, 4\), got shape \(2, 4\)"):
        Monitor(objective_of(mlp()), nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(TypeError, match="must be an Objective, got Sequential"):
        Monitor(mlp(), mlp())


def test_table_of_a_monitor_without_records_has_its_columns():
    model = mlp()
    table = hesspipe.Monitor(objective_of(model), model).table
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 0
    assert "eigenvalue" in table
