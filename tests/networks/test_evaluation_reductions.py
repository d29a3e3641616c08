"""Scores of sets larger than a batch: every loss and reduction, networks that couple samples."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from problems import labels, network, normal
from torch import Tensor, nn
from torch.nn import functional

from hesspipe.networks import evaluation
from hesspipe.networks.evaluation import loss_accuracy_and_slope, loss_and_accuracy

NUM_SAMPLES, NUM_CLASSES = 53, 3
WEIGHT = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
CLASSES = labels(NUM_SAMPLES, NUM_CLASSES)
ROWS = normal(NUM_SAMPLES, NUM_CLASSES, seed=4)


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of a user: it divides by something that is not known."""
    squares = (outputs.softmax(1) - functional.one_hot(targets, NUM_CLASSES)).square()
    return squares.sum() / (1 + targets.sum())


class Halved(nn.CrossEntropyLoss):
    """A subclass that divides by something else."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().forward(outputs, targets) * outputs.shape[0]


CROSS_ENTROPIES = [
    nn.CrossEntropyLoss(reduction="sum"),
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(weight=WEIGHT),
    nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"),
    nn.CrossEntropyLoss(ignore_index=1),
    nn.CrossEntropyLoss(ignore_index=1, weight=WEIGHT, reduction="sum"),
    nn.CrossEntropyLoss(label_smoothing=0.3),
    partial(functional.cross_entropy, reduction="sum"),
    partial(functional.cross_entropy, weight=WEIGHT, ignore_index=2),
    partial(functional.cross_entropy, size_average=False),
    brier,
    Halved(),
]
OTHERS = [
    nn.MSELoss(),
    nn.MSELoss(reduction="sum"),
    nn.HuberLoss(delta=0.3),
    partial(functional.smooth_l1_loss, reduction="sum"),
    nn.L1Loss(),
    lambda outputs, targets: functional.mse_loss(outputs, targets).sqrt(),
    lambda outputs, targets: (outputs - targets).square().sum() + targets.mean(),
]
BINARY = [
    nn.BCEWithLogitsLoss(),
    nn.BCEWithLogitsLoss(reduction="sum"),
    nn.BCEWithLogitsLoss(pos_weight=WEIGHT),
    nn.MultiLabelSoftMarginLoss(),
    nn.SoftMarginLoss(reduction="sum"),
]
CASES = [
    *((loss_fn, CLASSES) for loss_fn in CROSS_ENTROPIES),
    *((loss_fn, ROWS) for loss_fn in OTHERS),
    *((loss_fn, (ROWS > 0).double()) for loss_fn in BINARY),
    (nn.CrossEntropyLoss(), ROWS.softmax(1)),
    (nn.KLDivLoss(reduction="batchmean"), ROWS.softmax(1)),
]


@pytest.fixture(params=[7, 52])
def batch_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", request.param)
    return int(request.param)


@pytest.mark.filterwarnings("ignore:size_average and reduce args:UserWarning")
@pytest.mark.parametrize("number", range(len(CASES)))
def test_scores_are_those_of_the_whole_set_for_every_loss(number: int, batch_size: int) -> None:
    loss_fn, targets = CASES[number]
    model, inputs = network([4, 6, NUM_CLASSES], "tanh"), normal(NUM_SAMPLES, 4)
    outputs = model(inputs)
    loss = loss_fn(outputs, targets)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    found, accuracy, slope = loss_accuracy_and_slope(model, inputs, targets, loss_fn)
    assert found == pytest.approx(loss.item(), rel=1e-13)
    assert slope == pytest.approx(norm, rel=1e-12)
    assert loss_and_accuracy(model, inputs, targets, loss_fn) == (found, accuracy)


@pytest.mark.parametrize("loss_fn", [CROSS_ENTROPIES[4], CROSS_ENTROPIES[8]])
def test_accuracy_leaves_out_the_labels_that_the_loss_ignores(loss_fn, batch_size: int) -> None:
    model, inputs = network([4, 6, NUM_CLASSES], "tanh"), normal(NUM_SAMPLES, 4)
    ignored = 1 if isinstance(loss_fn, nn.Module) else 2
    rows = [
        (max(range(NUM_CLASSES), key=row.__getitem__), label)
        for row, label in zip(model(inputs).tolist(), CLASSES.tolist(), strict=True)
        if label != ignored
    ]
    expected = sum(guess == label for guess, label in rows) / len(rows)
    assert loss_and_accuracy(model, inputs, CLASSES, loss_fn)[1] == expected


def test_batches_without_a_valid_label_count_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", 10)
    model, inputs = network([4, 6, NUM_CLASSES]), normal(NUM_SAMPLES, 4)
    targets = CLASSES.clone()
    targets[10:20] = -100
    loss = functional.cross_entropy(model(inputs), targets).item()
    assert loss_and_accuracy(model, inputs, targets)[0] == pytest.approx(loss, rel=1e-14)
    with pytest.raises(ValueError, match="targets must hold what the loss counts"):
        loss_and_accuracy(model, inputs, torch.full_like(targets, -100))


class Centered(nn.Module):
    """Outputs depend on the other samples."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5).double(), nn.Linear(5, NUM_CLASSES).double()
        self.threshold = threshold

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        # Only in a batch that holds a large input.
        if inputs.max() > self.threshold:
            hidden = hidden - hidden.mean(0)
        return self.second(hidden)


@pytest.mark.parametrize("threshold", [-100.0, 2.0])
def test_networks_that_couple_samples_are_evaluated_whole(
    threshold: float, batch_size: int
) -> None:
    model, inputs = Centered(threshold), normal(NUM_SAMPLES, 4)
    assert inputs.max() > threshold
    loss = functional.cross_entropy(model(inputs), CLASSES)
    assert loss_and_accuracy(model, inputs, CLASSES)[0] == pytest.approx(loss.item(), rel=1e-13)


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        # One output, labels: no classes to choose from.
        ([[0.3], [-0.2], [0.1]], [0, 1, 1], None),
        # Counts, not labels.
        ([[0.3, 0.1], [1.0, 2.0], [0.0, 1.0]], [0, 4, 1], None),
        ([[0.3, 0.1], [1.0, 2.0], [0.0, 1.0]], [0, 1, 0], 2 / 3),
        ([0.3, 0.1, 2.0], [0, 1, 0], None),
        ([[0.3, 0.1], [1.0, 2.0], [0.0, 1.0]], [0.0, 1.0, 0.0], None),
    ],
)
def test_accuracy_is_that_of_class_labels_or_none(outputs, targets, expected) -> None:
    values = torch.tensor(outputs)
    model = nn.Identity()
    found = loss_and_accuracy(model, values, torch.tensor(targets), lambda o, t: o.sum())
    assert found[1] == expected


def test_slope_leaves_out_what_is_frozen_or_unused() -> None:
    model = nn.ModuleDict(
        {"used": nn.Linear(4, 3), "frozen": nn.Linear(4, 3), "idle": nn.Linear(2, 2)}
    )
    model.double()
    model["frozen"].requires_grad_(False)
    inputs = normal(20, 4)

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, inputs: Tensor) -> Tensor:
            return self.parts["used"](inputs) + self.parts["frozen"](inputs)

    loss = functional.cross_entropy(Sum()(inputs), labels(20, 3))
    gradients = torch.autograd.grad(loss, list(model["used"].parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    found = loss_accuracy_and_slope(Sum(), inputs, labels(20, 3))
    assert found[2] == pytest.approx(norm, rel=1e-14)


@pytest.mark.parametrize(
    ("inputs", "targets", "loss_fn", "message"),
    [
        (normal(0, 4), CLASSES[:0], nn.CrossEntropyLoss(), "at least one, got 0 and 0"),
        (normal(5, 4), CLASSES[:4], nn.CrossEntropyLoss(), "got 5 and 4"),
        (normal(5, 4), CLASSES[:5], nn.CrossEntropyLoss(reduction="none"), "return a scalar"),
        (normal(5, 4), normal(5), nn.MSELoss(), "targets must have the shape of the outputs"),
    ],
)
def test_scores_refuse_what_has_no_loss(inputs, targets, loss_fn, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_and_accuracy(network([4, 6, NUM_CLASSES]), inputs, targets, loss_fn)
