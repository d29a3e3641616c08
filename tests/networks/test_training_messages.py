"""A training whose data do not fit the network or the loss says so, as an objective does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hesspipe.data.dataset import Dataset
from hesspipe.networks.training import Schedule, train

X = torch.linspace(-1, 1, 80, dtype=torch.float64).view(20, 4)
Y = torch.arange(20) % 3
CASES: dict[str, tuple[Tensor, Tensor, str]] = {
    "labels as numbers": (X, Y.double(), r"targets.long\(\)"),
    "labels of 32 bits": (X, Y.int(), r"targets.long\(\)"),
    "labels from one": (X, Y + 1, "from 0 to the number of outputs - 1"),
    "labels of shape (N, 1)": (X, Y[:, None], r"targets.squeeze\(1\)"),
    "one-hot integers": (X, nn.functional.one_hot(Y, 3), r"targets.float\(\)"),
    "bytes": ((100 * X.abs()).to(torch.uint8), Y, r"inputs.float\(\)"),
    "too few inputs": (X[:, :3], Y, r"inputs \(20, 3\).*in 0 \(Linear\); every sample is one row"),
    "single precision": (X.float(), Y, "dtype of their inputs"),
}


MODELS = {
    "detached": lambda model, inputs: model(inputs).detach(),
    "numpy": lambda model, inputs: torch.from_numpy(model(inputs).detach().numpy()),
    "without gradients": torch.no_grad()(lambda model, inputs: model(inputs)),
}


@pytest.mark.parametrize("name", MODELS)
def test_train_says_that_the_loss_does_not_depend_on_the_parameters(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, forward = nn.Sequential(nn.Linear(4, 3)).double(), MODELS[name]
    model = nn.ModuleList([inside])
    monkeypatch.setattr(model, "forward", lambda inputs: forward(inside, inputs), raising=False)
    data = Dataset(X, Y, X[:0], Y[:0], num_classes=3)
    schedule = Schedule(0.1, 2, 5, record_every=1, checkpoint_every=2)
    with pytest.raises(ValueError, match="depend on the parameters: leave out detach") as caught:
        train(model, data, schedule, seed=0, path_to_state=tmp_path / "state", progress=False)
    assert "hesspipe first" not in str(caught.value)


def run(tmp_path: Path, inputs: Tensor, targets: Tensor, **options: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    data = Dataset(inputs, targets, inputs[:0], targets[:0], num_classes=None)
    settings = {"batch_size": 5, "step_size": 0.1, "num_steps": 4} | options
    schedule = Schedule(**{"record_every": 2, "checkpoint_every": 4} | settings)
    train(model, data, schedule, seed=0, path_to_state=tmp_path / "state", progress=False)


@pytest.mark.parametrize(("inputs", "targets", "advice"), CASES.values(), ids=CASES)
def test_train_says_what_data_must_be(
    tmp_path: Path, inputs: Tensor, targets: Tensor, advice: str
) -> None:
    with pytest.raises(ValueError, match=rf"must run on the data in torch\.float64, .*{advice}"):
        run(tmp_path, inputs, targets)


def test_train_says_at_which_step_a_batch_does_not_fit(tmp_path: Path) -> None:
    targets = Y.clone()
    targets[-1] = 7  # none of the samples that are recorded
    with pytest.raises(ValueError, match=r"\(batch \d: inputs \(5, 4\).*number of outputs - 1"):
        run(tmp_path, X, targets, num_recorded=5)
