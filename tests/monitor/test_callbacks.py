"""Callbacks, in real Trainers where these are installed, and their hooks everywhere."""

from __future__ import annotations

import copy
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
from hesspipe.monitor.callbacks import LightningHooks, TransformersHooks


def largest(model: nn.Module) -> float:
    return float(torch.linalg.eigvalsh(exact_hessian(model, *data()))[-1])


class Classifier(nn.Module):
    """The network as transformers' Trainer calls it."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": LOSS(logits, labels), "logits": logits}


def samples_of_dicts():
    return [{"x": x, "labels": y} for x, y in zip(*data(), strict=True)]


def transformers_or_skip():
    declare_operators()
    reason = "transformers is not installed; it is part of hesspipe[zoo]"
    transformers = pytest.importorskip("transformers", reason=reason)
    importlib.import_module("accelerate")
    return transformers


def lightning_or_skip():
    declare_operators()
    reason = "Lightning is not installed; it is part of hesspipe[zoo]"
    lightning = pytest.importorskip("lightning.pytorch", reason=reason)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lightning


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


@pytest.mark.parametrize("hooks", ["lightning", "transformers"])
def test_hooks_of_a_resumed_training_repeat_no_record_and_lose_none(hooks, tmp_path):
    """Steps 0 to 4, a checkpoint, step 5 that is lost, and 5 to 8 in a new process."""

    def begin(state):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = Monitor(objective_of(model), model, every=2, critical=True, on_error="raise")
        callback = {"lightning": LightningHooks, "transformers": TransformersHooks}[hooks](monitor)
        if state is not None:
            model.load_state_dict(state["model"])
            if hooks == "lightning":
                callback.load_state_dict(state["callback"])
        return model, optimizer, monitor, callback

    def run(steps, model, optimizer, callback, keep=()):
        trainer = SimpleNamespace(global_step=steps[0], is_global_zero=True, optimizers=[optimizer])
        state = SimpleNamespace(global_step=steps[0], is_world_process_zero=True)
        args, saved = SimpleNamespace(output_dir=str(tmp_path)), None
        if hooks == "lightning":
            callback.on_train_start(trainer, model)
        else:
            callback.on_train_begin(args, state, None, optimizer=optimizer)
        for step in steps[1:]:
            trainer.global_step = state.global_step = step
            with torch.no_grad():
                for part in model.parameters():
                    part.mul_(1.05)
            if hooks == "lightning":
                callback.on_train_batch_end(trainer, model, None, None, 0)
            else:
                callback.on_step_end(args, state, None)
            if step in keep:
                saved = {"model": {key: part.clone() for key, part in model.state_dict().items()}}
                if hooks == "lightning":
                    saved["callback"] = copy.deepcopy(callback.state_dict())
                else:
                    (tmp_path / f"checkpoint-{step}").mkdir()
                    callback.on_save(args, state, None)
        return saved

    whole, optimizer, expected, callback = begin(None)
    saved = run(range(9), whole, optimizer, callback, keep=(3, 4))
    model, optimizer, monitor, callback = begin(saved)
    run(range(4, 9), model, optimizer, callback)
    columns = ["step", "eigenvalue", "residual_norm", "num_products", "critical_sharpness"]
    assert monitor.table[columns].equals(expected.table[columns])
    assert monitor.optimizer is optimizer


def test_hooks_of_a_training_that_is_resumed_without_a_state_record_when_due(watched):
    model, monitor = watched
    hooks = LightningHooks(monitor)
    trainer = SimpleNamespace(global_step=5, is_global_zero=True, optimizers=[])
    hooks.on_train_start(trainer, model)
    for trainer.global_step in (6, 7):
        hooks.on_train_batch_end(trainer, model, None, None, 0)
    assert monitor.table["step"].unique().tolist() == [6]


def test_monitor_leaves_step_sizes_empty_where_several_optimizers_share_the_parameters(watched):
    model, monitor = watched
    first, second = [*model.parameters()][:2], [*model.parameters()][2:]
    optimizers = [torch.optim.SGD(first, lr=0.1), torch.optim.Adam(second, lr=0.1)]
    with pytest.warns(RuntimeWarning, match=r"belong to 2 optimizers \(SGD, Adam\)"):
        monitor.adopt_optimizer(optimizers)
    monitor.record(0)
    assert monitor.table["stability_limit"].isna().all()
    assert monitor.table["step_size"].isna().all()
    assert monitor.table["is_converged"].all()


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
    lightning = lightning_or_skip()
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
    transformers = transformers_or_skip()
    model = Classifier()
    monitor = Monitor(objective_of(model.net), model.net, every=2, tolerance=1e-7, on_error="raise")
    seen = {}

    class Look(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            seen[state.global_step] = largest(model.net)

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=8, report_to=[],
        learning_rate=0.01, lr_scheduler_type="constant", use_cpu=True, save_strategy="no",
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about pinned memory
        transformers.Trainer(
            model=model, args=arguments, train_dataset=samples_of_dicts(),
            callbacks=[monitor.for_transformers(), Look()],
        ).train()  # fmt: skip
    table = monitor.table.query("end == 'largest'")
    assert table["step"].tolist() == [0, 2, 4]
    assert table["eigenvalue"].tolist()[1:] == pytest.approx([seen[2], seen[4]], rel=1e-6)
    assert table["stability_limit"].tolist()[1:] == pytest.approx([3800.0] * 2)


def test_lightning_resumes_a_monitor_from_its_checkpoint_in_mixed_precision(tmp_path):
    lightning = lightning_or_skip()
    seen = {}

    class Training(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def training_step(self, batch, _):
            return LOSS(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def on_train_batch_end(self, *_):
            seen[self.trainer.global_step] = largest(self.net)
            assert self.net.training
            assert all(part.requires_grad for part in self.net.parameters())

    def fit(max_steps, checkpoint=None):
        module = Training()
        monitor = Monitor(
            objective_of(module.net), module.net, every=2, critical=True, tolerance=1e-7,
            on_error="raise",
        )  # fmt: skip
        trainer = lightning.Trainer(
            max_steps=max_steps, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
            callbacks=[monitor.for_lightning()], precision="bf16-mixed",
        )  # fmt: skip
        loader = DataLoader(TensorDataset(*data()), batch_size=24)  # a step is an epoch
        trainer.fit(module, loader, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "state.ckpt")
        return monitor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about workers and logging
        whole = fit(6)
        fit(4)
        again = fit(6, tmp_path / "state.ckpt")
    table = again.table.query("end == 'largest'")
    assert table["step"].tolist() == [0, 2, 4, 6]
    assert table["eigenvalue"].tolist()[1:] == pytest.approx([seen[2], seen[4], seen[6]], rel=1e-6)
    columns = ["step", "eigenvalue", "loss", "stability_limit", "critical_sharpness"]
    assert again.table[columns].equals(whole.table[columns])


def test_transformers_resumes_a_monitor_from_its_checkpoint(tmp_path):
    transformers = transformers_or_skip()

    def fit(folder, max_steps, **options):
        model = Classifier()
        monitor = Monitor(
            objective_of(model.net), model.net, every=2, critical=True, tolerance=1e-7,
            on_error="raise",
        )  # fmt: skip
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), max_steps=max_steps, per_device_train_batch_size=4,
            gradient_accumulation_steps=2, report_to=[], learning_rate=0.01,
            lr_scheduler_type="constant", use_cpu=True, save_strategy="steps", save_steps=2,
            disable_tqdm=True, logging_strategy="no", bf16=True,
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=arguments, train_dataset=samples_of_dicts(),
            callbacks=[monitor.for_transformers()],
        ).train(**options)  # fmt: skip
        return monitor, model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about pinned memory
        whole, _ = fit(tmp_path / "whole", 6)
        fit(tmp_path / "parts", 4)
        again, model = fit(tmp_path / "parts", 6, resume_from_checkpoint=True)
    assert again.table["step"].unique().tolist() == [0, 2, 4, 6]
    columns = ["step", "eigenvalue", "loss", "stability_limit", "critical_sharpness"]
    assert again.table[columns].equals(whole.table[columns])
    assert again.table["eigenvalue"].iloc[-1] == pytest.approx(largest(model.net), rel=1e-6)
