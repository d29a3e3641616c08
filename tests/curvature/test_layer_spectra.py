"""Spectra of layers against blocks of dense matrices by plain torch, of unusual networks too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import EPS, labels, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.networks.architectures import initialize_normal
from hesspipe.objective.objective import Objective

X, Y = normal(9, 4), labels(9, 3)
TOKENS = labels(12, 7).view(4, 3)


class Tied(nn.Module):
    """An embedding whose weight is that of the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle = nn.Embedding(7, 3), nn.Linear(3, 3)
        self.head = nn.Linear(3, 7)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.middle(self.embedding(tokens).mean(1)).tanh())
        return outputs


class Adapted(nn.Module):
    """A frozen layer with an adapter of rank 2, as LoRA adds it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 3).requires_grad_(False)
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.base(inputs) + self.up(self.down(inputs))
        return outputs


class Scaled(nn.Module):
    """A network with a scalar parameter of its own, and a vector without effect."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.idle = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.ones(2))
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = (self.scale * self.layer(inputs)).tanh()
        return outputs


def convolutional() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    )
    return model.eval()


def coupled(outputs: Tensor, targets: Tensor) -> Tensor:
    similarity = functional.normalize(outputs, dim=1) @ functional.normalize(outputs, dim=1).mT
    return functional.cross_entropy(similarity, targets)


def sum_of_outputs(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.sum()


# Model, inputs, targets, loss, and other arguments of the objective.
KINDS: dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor, Any, dict[str, Any]]] = {
    "linear layers": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), X, Y,
                      nn.CrossEntropyLoss(), {}),
    "weight decay": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), X, Y,
                     nn.CrossEntropyLoss(), {"weight_decay": 0.1}),
    "convolutions and batch norm": (convolutional, normal(5, 1, 4, 4), labels(5, 3),
                                    nn.CrossEntropyLoss(), {}),
    "tied weights": (Tied, TOKENS, labels(4, 7), nn.CrossEntropyLoss(), {}),
    "adapters": (Adapted, X, Y, nn.CrossEntropyLoss(), {}),
    "parameters of the model itself": (Scaled, X, normal(9, 3), nn.MSELoss(), {}),
    "coupled loss": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)), X,
                     torch.arange(9), coupled, {}),
    "some parameters": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), X, Y,
                        nn.CrossEntropyLoss(), {"parameters": ["0.bias", "2.weight"]}),
    "all but one frozen": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), X,
                           Y, nn.CrossEntropyLoss(), {"parameters": ["0.bias"]}),
    "no curvature at all": (lambda: nn.Linear(4, 1), X, X[:, :1], sum_of_outputs, {}),
}  # fmt: skip


def build(kind: str) -> tuple[nn.Module, Objective]:
    make, inputs, targets, loss_fn, options = KINDS[kind]
    model = make().double()
    initialize_normal(model, 0.6, torch.Generator().manual_seed(0))
    data: Any = [(inputs, targets)] if kind == "coupled loss" else (inputs, targets)
    return model, Objective(model, loss_fn, data, **options)


def dense(kind: str, model: nn.Module, names: list[str]) -> Tensor:
    """H of some parameters by plain torch, with all the others constant."""
    _, inputs, targets, loss_fn, options = KINDS[kind]
    values = dict(model.named_parameters())
    shapes = [values[name].shape for name in names]

    def loss(theta: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes])
        state = {
            name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)
        }
        outputs = torch.func.functional_call(model, state, (inputs,))
        decay: float = options.get("weight_decay", 0.0)
        value: Tensor = loss_fn(outputs, targets) + decay / 2 * theta.square().sum()
        return value

    theta = torch.cat([values[name].detach().flatten() for name in names])
    found: Tensor = torch.autograd.functional.hessian(loss, theta)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_layer_spectra_are_those_of_blocks_of_the_dense_matrix(kind: str) -> None:
    model, objective = build(kind)
    found = hesspipe.layer_spectra(objective)
    whole = dense(kind, model, objective.names)
    sizes = dict(zip(objective.names, [s.numel() for s in objective.shapes], strict=True))
    starts = dict(zip(sizes, torch.tensor([0, *sizes.values()]).cumsum(0).tolist(), strict=False))
    covered = set()
    for group, spectrum in found.items():
        names = found.names[group]
        rows = torch.cat([torch.arange(starts[n], starts[n] + sizes[n]) for n in names])
        expected = torch.linalg.eigvalsh(whole[rows][:, rows])
        assert isinstance(spectrum, hesspipe.Spectrum)
        assert spectrum.eigenvalues.shape == expected.shape == (found.num_parameters[group],)
        allowed = 100 * EPS * max(float(whole.norm()), 1.0)
        assert (spectrum.eigenvalues - expected).abs().max() <= allowed
        assert spectrum.num_negative == int((expected < -spectrum.tolerance).sum())
        covered.update(names)
    assert covered == set(objective.names)
    assert repr(found).startswith("LayerSpectra of the hessian")
    assert len(repr(found).splitlines()) == 2 + len(found)


def test_layer_spectra_have_one_group_for_each_module_with_parameters() -> None:
    groups = {kind: build(kind)[1] for kind in ("tied weights", "adapters", "some parameters")}
    names = {kind: hesspipe.layer_spectra(each).names for kind, each in groups.items()}
    assert names["tied weights"] == {
        "embedding": ["embedding.weight"],
        "middle": ["middle.weight", "middle.bias"],
        "head": ["embedding.weight", "head.bias"],
    }
    assert names["adapters"] == {"down": ["down.weight"], "up": ["up.weight"]}
    assert names["some parameters"] == {"0": ["0.bias"], "2": ["2.weight"]}
    root = hesspipe.layer_spectra(build("parameters of the model itself")[1])
    assert list(root) == ["(model)", "layer"]
    assert root.names["(model)"] == ["scale", "idle"]


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_layer_spectra_of_groups_are_those_of_diagonal_blocks(matrix: str) -> None:
    _, objective = build("weight decay")
    groups = {"weights": ["*.weight"], "last bias": ["2.b*"]}
    found = hesspipe.layer_spectra(objective, groups, matrix)
    values = getattr(hesspipe, f"{matrix}_matrix")(objective, "columns")
    rows = {"weights": [*range(20), *range(25, 40)], "last bias": [40, 41, 42]}
    assert list(found) == list(groups)
    for group, places in rows.items():
        expected = torch.linalg.eigvalsh(values[places][:, places])
        spectrum: Any = found[group]
        assert (spectrum.eigenvalues - expected).abs().max() <= 100 * EPS * values.norm()
        assert spectrum.matrix == matrix


@pytest.mark.parametrize(("kind", "matrix"), [("density", "hessian"), ("eigenpairs", "residual")])
def test_layer_spectra_without_matrices_agree_with_exact_ones(kind: Any, matrix: str) -> None:
    _, objective = build("convolutions and batch norm")
    exact = hesspipe.layer_spectra(objective, matrix=matrix, kind="spectrum")
    found: Any = hesspipe.layer_spectra(objective, matrix=matrix, kind=kind, num_pairs=1)
    for group, spectrum in exact.items():
        values = spectrum.eigenvalues  # type: ignore[union-attr]
        scale = float(values.abs().max())
        if kind == "density":
            assert found[group].dim == len(values)
            assert float(found[group].nodes.max()) <= float(values.max()) + 1e-9 * scale
            assert float(found[group].nodes.min()) >= float(values.min()) - 1e-9 * scale
        else:
            ends = values[[0, -1]] if len(values) > 1 else values
            assert (found[group].eigenvalues - ends).abs().max() <= 1e-7 * scale


def test_layer_spectra_of_float32_are_densities() -> None:
    model, data = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), (X, X[:, :1])
    objective = Objective(model, nn.MSELoss(), data, dtype=torch.float32)
    assert all(isinstance(each, hesspipe.Density) for each in
               hesspipe.layer_spectra(objective).values())  # fmt: skip
    single: Any = hesspipe.layer_spectra(objective, {"bias": ["2.bias"]})["bias"]
    assert (single.nodes - 2.0).abs().max() <= 1e-5  # d2/db2 of the mean of (f + b - y)^2


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "groups must map names to patterns"),
        (["0.*"], "groups must map names to patterns"),
        ({"a": "0.*"}, r"lists of patterns, got '0\.\*' for 'a'"),
        ({"a": []}, "must have at least one parameter, got none in 'a'"),
        ({"a": ["0.*", "5.weight"]}, r"vary, got '5.weight' in 'a'; the nearest are 2.weight"),
        ({"a": ["0.*"], "b": ["*.bias"]}, "must not overlap, got 0.bias in 'a' and 'b'"),
    ],
)  # fmt: skip
def test_layer_spectra_refuse_groups_that_do_not_fit(groups: Any, message: str) -> None:
    _, objective = build("weight decay")
    with pytest.raises(ValueError, match=message):
        hesspipe.layer_spectra(objective, groups)


def test_layer_spectra_know_constants_and_names_of_tied_weights() -> None:
    with pytest.raises(ValueError, match=r"match parameters that vary, got 'base.\*' in 'frozen'"):
        hesspipe.layer_spectra(build("adapters")[1], {"frozen": ["base.*"]})
    _, tied = build("tied weights")
    by_head = hesspipe.layer_spectra(tied, {"weight": ["head.weight"]})
    assert by_head.names == {"weight": ["embedding.weight"]}
    with pytest.raises(ValueError, match=r"must not overlap, got embedding.weight in 'a' and 'b'"):
        hesspipe.layer_spectra(tied, {"a": ["embedding.*"], "b": ["head.*"]})
    with pytest.raises(ValueError, match="kind must be one of auto, spectrum, density, eigenp"):
        hesspipe.layer_spectra(tied, kind="exact")  # type: ignore[arg-type]


def test_layer_spectra_keep_the_results_of_other_layers() -> None:
    _, objective = build("weight decay")
    found = hesspipe.layer_spectra(
        objective, {"many": ["0.*"], "few": ["2.bias"]}, kind="eigenpairs", num_pairs=1,
        max_products=5,
    )  # fmt: skip
    assert list(found) == ["few"]
    assert "NotConvergedError" in repr(found)
    with pytest.raises(hesspipe.NotConvergedError, match="converged in 5 products"):
        found["many"]
    with pytest.raises(hesspipe.NotConvergedError):
        hesspipe.layer_spectra(objective, {"many": ["0.*"]}, kind="eigenpairs", max_products=5)
