"""Matrices of convolutional networks against closed forms, `torch.func` and columns."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from curvature_reference import MATRICES, REFERENCES, reference_hessian
from problems import EPS, assert_close, labels, network, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature import columns, convolutional, dense, layers, tangents
from hesspipe.curvature.dense import exact_matrix
from hesspipe.errors import InconsistentMatrixError, NotASumOverSamplesError
from hesspipe.networks.architectures import initialize_normal
from hesspipe.objective.objective import Objective

# torch warns about torch.jit.script, which it uses itself, when it first differentiates forward,
# and that padding "same" with even kernels, which is asymmetric, copies the input.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]))


def pooled() -> list[nn.Module]:
    """The paper's kind of network, on images of 1 x 8 x 8."""
    return [
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 3),
    ]  # fmt: skip


def strided() -> list[nn.Module]:
    """Unequal strides, paddings and dilations; layers without a bias; no pooling."""
    return [
        nn.Conv2d(1, 3, (2, 3), stride=(2, 3), padding=(1, 2), bias=False), nn.LeakyReLU(),
        nn.Conv2d(3, 2, 2, dilation=(3, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3, bias=False),
    ]  # fmt: skip


def overlapping() -> list[nn.Module]:
    """Overlapping windows, padding by name, average pooling."""
    return [
        nn.Conv2d(1, 2, 2, padding="same"), nn.ReLU(), nn.MaxPool2d(3, stride=1),
        nn.Conv2d(2, 3, (3, 2), padding="valid"), nn.AvgPool2d(2), nn.ReLU(),
        nn.Conv2d(3, 2, (2, 1), padding="same", dilation=(2, 1)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3),
    ]  # fmt: skip


def narrow_head() -> list[nn.Module]:
    """A Linear layer of more inputs than an earlier layer has weights."""
    return [
        nn.Conv2d(1, 1, 2), nn.ReLU(), nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 3),
    ]  # fmt: skip


class Branches(nn.Module):
    """Layers defined in another order than called, and a branch without later layers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8 + 3, 3)
        self.second = nn.Conv2d(3, 2, 3, stride=2)
        self.aside = nn.Linear(64, 3)
        self.first = nn.Conv2d(1, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.first(images))
        hidden = torch.cat([hidden, images[:, :, 1:-1, 1:-1]], 1)
        side = torch.relu(self.aside(images.flatten(1)))
        pixels = torch.max_pool2d(torch.relu(self.second(hidden)), 2, 1, padding=1)[..., :2, :2]
        return self.head(torch.cat([pixels.flatten(1), side], 1))


class Skip(nn.Module):
    """A skip connection past the second layer, so that there are two paths to the third."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.third = nn.Conv2d(2, 2, 2, stride=3)
        self.head = nn.Linear(18, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.first(images))
        hidden = hidden + torch.relu(self.second(hidden))
        return self.head(torch.relu(self.third(hidden)).flatten(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "pooled": lambda: nn.Sequential(*pooled()),
    "strided": lambda: nn.Sequential(*strided()),
    "overlapping": lambda: nn.Sequential(*overlapping()),
    "narrow head": lambda: nn.Sequential(*narrow_head()),
    "branches": Branches,
    "skip": Skip,
}


def is_applicable(objective: Objective) -> bool:
    """Whether the network has the structure that the method needs."""
    found = layers.find_layers(objective)
    return bool(found) and layers.is_piecewise_linear(objective, found)


def build(name: str = "pooled", std: float = 0.6) -> nn.Module:
    """A network at a random point in general position."""
    model = NETWORKS[name]().double()
    initialize_normal(model, std, torch.Generator().manual_seed(2))
    return model


def objective_on(
    model: nn.Module, loss_fn: nn.Module | Callable[..., Tensor] = WEIGHTED, num_samples: int = 9
) -> Objective:
    """One batch of random images."""
    return Objective(model, loss_fn, (normal(num_samples, 1, 8, 8), labels(num_samples, 3)))


@functools.cache
def on_several_batches(name: str) -> tuple[Objective, Tensor]:
    """A network on three batches, and the norm of its Hessian."""
    splits = [4, 4, 1]
    batches = zip(normal(9, 1, 8, 8).split(splits), labels(9, 3).split(splits), strict=True)
    objective = Objective(build(name), WEIGHTED, batches)
    return objective, reference_hessian(objective).norm()


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_matrix_equals_its_reference_on_several_batches(matrix: str, name: str) -> None:
    objective, scale = on_several_batches(name)
    found = MATRICES[matrix](objective, "convolutions")
    assert (found - REFERENCES[matrix](objective)).abs().max() <= 20 * EPS * scale
    assert (found - MATRICES[matrix](objective, "columns")).abs().max() <= 20 * EPS * scale
    assert torch.equal(found, found.mT)


def concave(outputs: Tensor, _: Tensor) -> Tensor:
    return -outputs.square().sum(1).mean()


def linear(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs[:, 0].mean()


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(reduction="sum"), concave, linear])
def test_matrix_equals_its_reference_for_any_loss(
    matrix: str, loss_fn: Callable[..., Tensor]
) -> None:
    objective = objective_on(build(), loss_fn)
    scale = reference_hessian(objective).norm()
    found = MATRICES[matrix](objective, "convolutions")
    assert (found - REFERENCES[matrix](objective)).abs().max() <= 20 * EPS * scale
    if matrix == "ggn":
        assert found.trace().sign() == {concave: -1, linear: 0}.get(loss_fn, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_hessian_is_the_sum_of_ggn_and_residual_by_columns(name: str) -> None:
    objective = objective_on(build(name), num_samples=20)
    hessian = hesspipe.hessian_matrix(objective, "convolutions")
    ggn, residual = (MATRICES[matrix](objective, "columns") for matrix in ("ggn", "residual"))
    assert residual.norm() > 0.01 * hessian.norm()  # the sum is a test only if both terms count
    assert_close(hessian, ggn + residual)


def test_products_agree_on_images_of_the_size_of_digits() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 12), nn.ReLU(), nn.Linear(12, 10),
    ).double()  # fmt: skip
    initialize_normal(model, 0.1, torch.Generator().manual_seed(2))
    data = normal(40, 1, 28, 28), labels(40, 10)
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    vectors = normal(3, objective.num_parameters, seed=7)
    for name, function in MATRICES.items():
        found = function(objective, "convolutions")
        assert_close(vectors @ found, columns.multiply(objective, name, vectors))


def test_convolution_of_the_whole_image_is_linear_regression() -> None:
    images, targets = normal(9, 2, 3, 4), normal(9, 5)
    model = nn.Sequential(nn.Conv2d(2, 5, (3, 4), bias=False), nn.Flatten()).double()
    objective = Objective(model, nn.MSELoss(), (images, targets))
    vectors = images.flatten(1)
    # MSELoss divides by N * C elements: H = 2 / (N C) * I_C (x) X^T X
    expected = torch.kron(torch.eye(5, dtype=torch.float64), vectors.T @ vectors) * 2 / (9 * 5)
    assert_close(hesspipe.hessian_matrix(objective, "convolutions"), expected)
    assert hesspipe.residual_matrix(objective, "convolutions").norm() == 0


def test_network_of_linear_layers_agrees_with_layers() -> None:
    objective = Objective(network([4, 5, 3, 3]), WEIGHTED, (normal(9, 4), labels(9, 3)))
    for function in MATRICES.values():
        assert_close(function(objective, "convolutions"), function(objective, "layers"))


def test_dead_channel_is_zero_rows() -> None:
    model = build()
    with torch.no_grad():
        model[0].bias[1] = -1e3
    objective = objective_on(model)
    is_dead = torch.zeros(objective.num_parameters, dtype=torch.bool)
    is_dead[9:18] = is_dead[27 + 1] = True  # its kernel and bias
    for function in MATRICES.values():
        found = function(objective, "convolutions")
        assert (found[is_dead] == 0).all()
        assert_close(found, function(objective, "columns"))


@pytest.mark.parametrize("name", ["pooled", "branches"])
def test_memory_budget_does_not_change_the_matrix(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_on(build(name))
    expected = {matrix: MATRICES[matrix](objective, "convolutions") for matrix in MATRICES}
    sizes = []
    evaluate = layers.evaluate_patches

    def recorded(objective: Objective, names: list[str], inputs: Tensor) -> object:
        sizes.append(len(inputs))
        return evaluate(objective, names, inputs)

    monkeypatch.setattr(convolutional, "evaluate_patches", recorded)
    monkeypatch.setattr(convolutional, "_SAMPLE_BYTES", 1)
    for matrix, function in MATRICES.items():
        assert_close(function(objective, "convolutions"), expected[matrix])
    assert sizes == [1] * len(sizes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pooled", {"block_of_group", "block_through", "_add_by_cotangents"}),
        ("skip", {"block_of_group", "_add_by_cotangents"}),
    ],
)
def test_each_derivative_is_used(
    name: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = set()

    def record(way: str) -> None:
        original = getattr(convolutional, way)

        def recorded(*args: object) -> object:
            taken.add(way)
            return original(*args)

        monkeypatch.setattr(convolutional, way, recorded)

    for way in ("block_of_group", "block_through", "_add_by_cotangents"):
        record(way)
    hesspipe.residual_matrix(objective_on(build(name)), "convolutions")
    assert taken == expected


def test_units_that_reach_different_entries_take_one_pass() -> None:
    objective = objective_on(build())
    found = layers.find_layers(objective)
    names = [layer.name for layer in found]
    evaluation = layers.evaluate_patches(objective, names, objective.batches[0].inputs)

    def num_groups(late: int, early: int) -> int:
        delta = evaluation.deltas[names[early]]
        push = tangents.pusher(evaluation.patches[names[late]], delta)
        return len(tangents.separate_units(push, found[late].num_inputs, delta))

    assert [num_groups(1, 0), num_groups(2, 1), num_groups(3, 2)] == [1, 1, 1]
    assert num_groups(2, 0) == found[0].num_units
    assert tangents.pusher(evaluation.patches[names[0]], evaluation.deltas[names[1]]) is None


@pytest.mark.parametrize("pass_numbers", [1, 500, 10**9])
@pytest.mark.parametrize("name", ["pooled", "skip"])
def test_passes_of_any_size_give_the_same_residual(
    name: str, pass_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_on(build(name))
    expected = hesspipe.residual_matrix(objective, "columns")
    monkeypatch.setattr(tangents, "_PASS_NUMBERS", pass_numbers)
    assert_close(hesspipe.residual_matrix(objective, "convolutions"), expected)


def test_model_is_not_changed() -> None:
    model = build().float().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hesspipe.hessian_matrix(objective_on(model), "convolutions")
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for module in model.modules():
        assert not module._forward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


class Wrapped(nn.Module):
    """A convolution and a head, with a function in between that subclasses define."""

    def __init__(self, convolution: nn.Module | None = None) -> None:
        super().__init__()
        self.convolution = convolution or nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(128, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.between(self.convolution(images)).flatten(1))

    def between(self, hidden: Tensor) -> Tensor:
        return torch.relu(hidden)


class Tanh(Wrapped):
    """Not piecewise linear, by a function that is not a module."""

    between = staticmethod(torch.tanh)


class Gated(Wrapped):
    """Linear in each channel, but not in both."""

    def between(self, hidden: Tensor) -> Tensor:
        return torch.cat([hidden[:, :1] * hidden[:, 1:], hidden[:, :1]], 1)


class Shared(Wrapped):
    """A convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 1, 3, padding=1))
        self.head = nn.Linear(64, 3)

    def between(self, hidden: Tensor) -> Tensor:
        return self.convolution(torch.relu(hidden))


class CalledWithoutEffect(Wrapped):
    """A convolution that is called twice, the first time without effect."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 1, 3, padding=1))
        self.second = nn.Conv2d(1, 1, 3, padding=1)
        self.head = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.second(images)
        return super().forward(images)

    def between(self, hidden: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(hidden)))


class UsedElsewhere(Wrapped):
    """A weight that is also used outside its layer."""

    def between(self, hidden: Tensor) -> Tensor:
        return torch.relu(hidden) * self.convolution.weight.sum()


class Centered(Wrapped):
    """The outputs of each sample depend on the whole batch."""

    def between(self, hidden: Tensor) -> Tensor:
        return torch.relu(hidden - hidden.mean(0))


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "tanh": Tanh,
    "gate": Gated,
    "shared": Shared,
    "called without effect": CalledWithoutEffect,
    "used elsewhere": UsedElsewhere,
    "coupled samples": Centered,
    "groups": lambda: Wrapped(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1, groups=2))
    ),
    "layer norm": lambda: Wrapped(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.LayerNorm(8))),
    "plain layer norm": lambda: Wrapped(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.LayerNorm(8, elementwise_affine=False))
    ),
    "pixels in a Linear": lambda: Wrapped(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Linear(8, 8))
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_method_is_not_used_where_it_would_be_wrong(name: str) -> None:
    model = REFUSED[name]().double()
    initialize_normal(model, 0.3, torch.Generator().manual_seed(2))
    objective = objective_on(model)
    assert not is_applicable(objective)
    with pytest.raises(ValueError, match=r"'convolutions' needs a piecewise linear network.*colu"):
        hesspipe.hessian_matrix(objective, "convolutions")
    assert exact_matrix(objective, "hessian").method == "columns"


def test_circular_padding_is_left_to_columns() -> None:
    # With empty margins, as in digits, every padding mode gives the same outputs.
    model = Wrapped(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"))
    images = nn.functional.pad(normal(9, 1, 6, 6), (1, 1, 1, 1))
    objective = Objective(model, WEIGHTED, (images, labels(9, 3)))
    assert not is_applicable(objective)


def test_frozen_parameters_are_left_to_columns() -> None:
    model = build()
    model[3].bias.requires_grad_(False)
    assert exact_matrix(objective_on(model), "ggn").method == "columns"


def test_forward_hook_of_the_caller_is_kept() -> None:
    model = build()
    model[3].register_forward_hook(lambda module, args, output: 2 * output)
    objective = objective_on(model)
    assert not is_applicable(objective)
    assert_close(hesspipe.hessian_matrix(objective), reference_hessian(objective))


@pytest.mark.parametrize("name", NETWORKS)
def test_auto_uses_the_method_where_it_applies(name: str) -> None:
    assert exact_matrix(objective_on(build(name)), "residual").method == "convolutions"


@pytest.mark.parametrize("matrix", ["hessian", "residual"])
def test_curved_network_mistaken_for_piecewise_linear_is_refused(
    matrix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "is_piecewise_linear", lambda *_: True)
    with pytest.raises(InconsistentMatrixError, match=f"the {matrix} disagrees with a product"):
        MATRICES[matrix](objective_on(Tanh()), "convolutions")


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_loss_that_couples_samples_is_refused(matrix: str) -> None:
    objective = objective_on(build(), lambda outputs, _: outputs.var(0).sum())
    with pytest.raises(NotASumOverSamplesError, match="loss_fn must be a sum or mean over samples"):
        MATRICES[matrix](objective, "convolutions")


def test_auto_uses_columns_where_the_loss_couples_samples() -> None:
    objective = objective_on(build(), lambda outputs, _: outputs.var(0).sum())
    assert exact_matrix(objective, "hessian").method == "columns"
