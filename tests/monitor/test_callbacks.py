"""Callbacks, in real Trainers where these are installed, and their hooks everywhere."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from monitor_training import LOSS, data, exact_hessian, mlp, objective_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision_operators import declare_operators

from hesspipe import Monitor
from hesspipe.monitor.callbacks import LightningHooks


def largest(model: nn.Module) -> float:
    return float(torch.linalg.eigvalsh(exact_hessian(model, *data()))[-1])


@pytest.fixture
def watched():
    model = mlp()
    monitor = Monitor(
        objective_of(model), model, every=2, critical=True, tolerance=1e-7, on_error="raise"
    )
    return model, monitor


def test_lightning_hooks_count_steps_of_the_optimizer_not_batches(watched):
    model, monitor = watched
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hooks = LightningHooks(monitor)
    trainer = SimpleNamespace(global_step=0, is_global_zero=True, optimizers=[optimizer])
    hooks.on_train_start(trainer, model)
    for global_step in (0, 1, 1, 1, 2, 2, 3, 4):  # accumulated gradients
        trainer.global_step = global_step
        hooks.on_train_batch_end(trainer, model, None, None, 0)
    assert monitor.optimizer is optimizer
    assert monitor.table["step"].unique().tolist() == [0, 2, 4]


def test_lightning_hooks_record_when_two_optimizers_pass_a_multiple(watched):
    model, monitor = watched
    hooks = LightningHooks(monitor)
    trainer = SimpleNamespace(global_step=0, is_global_zero=True, optimizers=[])
    hooks.on_train_start(trainer, model)
    for trainer.global_step in (3, 6, 9):
        hooks.on_train_batch_end(trainer, model, None, None, 0)
    assert monitor.table["step"].unique().tolist() == [0, 3, 6, 9]


def test_lightning_hooks_leave_the_record_to_the_first_process(watched):
    model, monitor = watched
    hooks = LightningHooks(monitor)
    trainer = SimpleNamespace(global_step=0, is_global_zero=False, optimizers=[])
    hooks.on_train_start(trainer, model)
    trainer.global_step = 2
    hooks.on_train_batch_end(trainer, model, None, None, 0)
    assert len(monitor.table) == 0


@pytest.mark.parametrize(
    ("absent", "method"),
    [
        (("lightning", "lightning.pytorch", "pytorch_lightning"), "for_lightning"),
        (("transformers",), "for_transformers"),
    ],
)
def test_callbacks_name_the_package_that_is_missing(monkeypatch, watched, absent, method):
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install"):
        getattr(watched[1], method)()


def test_monitor_records_in_a_trainer_of_lightning(watched, tmp_path):
    reason = "Lightning is not installed; it is part of hesspipe[zoo]"
    declare_operators()
    lightning = pytest.importorskip("lightning.pytorch", reason=reason)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    net, monitor = watched
    seen = {}

    class Training(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, _):
            return LOSS(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

        def on_train_batch_end(self, *_):
            seen[self.trainer.global_step] = largest(net)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about workers and logging
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
            callbacks=[monitor.for_lightning()], accumulate_grad_batches=2,
        )  # fmt: skip
        trainer.fit(Training(), DataLoader(TensorDataset(*data()), batch_size=4))
    table = monitor.table.query("end == 'largest'")
    assert table["step"].tolist() == [0, 2, 4, 6]
    assert table["eigenvalue"].tolist()[1:] == pytest.approx([seen[2], seen[4], seen[6]], rel=1e-6)
    assert table["stability_limit"].tolist()[1:] == pytest.approx([3800.0] * 3)
    assert table["critical_sharpness"].notna().any()


def test_monitor_records_in_a_trainer_of_transformers(tmp_path):
    reason = "transformers is not installed; it is part of hesspipe[zoo]"
    declare_operators()
    transformers = pytest.importorskip("transformers", reason=reason)
    importlib.import_module("accelerate")

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x, labels):
            logits = self.net(x)
            return {"loss": LOSS(logits, labels), "logits": logits}

    model = Classifier()
    monitor = Monitor(objective_of(model.net), model.net, every=2, tolerance=1e-7, on_error="raise")
    seen = {}

    class Look(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            seen[state.global_step] = largest(model.net)

    inputs, targets = data()
    samples = [{"x": x, "labels": y} for x, y in zip(inputs, targets, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=8, report_to=[],
        learning_rate=0.01, lr_scheduler_type="constant", use_cpu=True, save_strategy="no",
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about pinned memory
        transformers.Trainer(
            model=model, args=arguments, train_dataset=samples,
            callbacks=[monitor.for_transformers(), Look()],
        ).train()  # fmt: skip
    table = monitor.table.query("end == 'largest'")
    assert table["step"].tolist() == [0, 2, 4]
    assert table["eigenvalue"].tolist()[1:] == pytest.approx([seen[2], seen[4]], rel=1e-6)
    assert table["stability_limit"].tolist()[1:] == pytest.approx([3800.0] * 2)
