"""Alignment computes the same function, or names the layer that does not allow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import EPS, normal
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from hesspipe.landscape.alignment import align_units, match_units, permute_units

ROLLED = np.roll(np.arange(5), 1)


def chain(*between: nn.Module, width: int = 5, bias: bool = True) -> nn.Sequential:
    """Two layers with modules between them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, width, bias=bias), *between, nn.Linear(width, 3, bias=bias)
    ).double()


def images(*between: nn.Module, num_inputs: int = 5 * 36) -> nn.Sequential:
    """A convolution on 8 x 8 images, and a layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 5, 3), *between, nn.Linear(num_inputs, 3)).double()


def hooked() -> nn.Sequential:
    model = chain(nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output * torch.arange(5))
    return model


def pruned() -> nn.Sequential:
    model = chain(nn.ReLU())
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def normed() -> nn.Sequential:
    model = chain(nn.ReLU())
    parametrizations.spectral_norm(model[0])
    return model


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)).double()
    model[2].weight = model[0].weight
    return model


def twice() -> nn.Sequential:
    layer = nn.Linear(5, 5)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), layer, nn.ReLU(), layer).double()


class OneOf(nn.Linear):
    """A layer that treats one unit unlike the others."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return torch.cat([outputs[:, :1], outputs[:, 1:].tanh()], 1)


class Skip(nn.Sequential):
    """A hidden layer that feeds two others."""

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self[1](self[0](inputs))
        return self[2](hidden) + hidden[:, :3]


class Branches(nn.Module):
    """Weights used as a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(self.first(inputs) @ self.second.weight.T, torch.eye(3))


RIGHT = {
    "relu": chain(nn.ReLU()),
    "without biases": chain(nn.Tanh(), bias=False),
    "dropout": chain(nn.ReLU(), nn.Dropout(0.5)),
    "dead": chain(nn.ReLU(), nn.Identity()),
    "softmax after the last layer": nn.Sequential(*chain(nn.ReLU()), nn.LogSoftmax(1)).double(),
    "float32": chain(nn.GELU()).float(),
    "images": images(nn.ReLU(), nn.Flatten()),
    "pooled images": images(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), num_inputs=5 * 9),
    "in place": chain(nn.ReLU(inplace=True)),
}
WRONG = {
    "twice": (twice(), [ROLLED], "one parameter in 2 and 4"),
    "tied": (tied(), [ROLLED], "one parameter in 0 and 2"),
    "hooked": (hooked(), [ROLLED], "another function from the units of layer 0"),
    "pruned": (pruned(), [ROLLED], "parametrized ones in layer 0"),
    "parametrized": (normed(), [ROLLED], "parametrized ones in layer 0"),
    "a layer of its own": (
        nn.Sequential(OneOf(4, 5), nn.Linear(5, 3)).double(), [ROLLED], "units of layer 0",
    ),
    "skip": (
        Skip(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double(), [ROLLED],
        "must be a Sequential, got Skip",
    ),
    "functional": (Branches(), [ROLLED], "must be a Sequential, got Branches"),
    "batch normalization": (chain(nn.BatchNorm1d(5)), [ROLLED], "BatchNorm1d.* at 1"),
    "softmax between": (chain(nn.Softmax(1)), [ROLLED], "Softmax.* at 1"),
    "nested": (chain(nn.Sequential(nn.Linear(5, 5))), [ROLLED], r"Sequential\((.|\n)* at 1"),
    "a layer across pixels": (images(num_inputs=6), [ROLLED], "inputs for each of the 5 units"),
    "a layer across as many pixels": (
        nn.Sequential(nn.Conv2d(2, 5, 3), nn.Linear(5, 3)).double(), [ROLLED], "units of layer 0",
    ),
    "too few orders": (chain(nn.ReLU()), [], "orders must be 1, .* got 0"),
    "too many orders": (chain(nn.ReLU()), [ROLLED, ROLLED], "orders must be 1, .* got 2"),
    "too short": (chain(nn.ReLU()), [ROLLED[:4]], "layer 0 must be 5 integers, got .*4"),
    "twice the same unit": (chain(nn.ReLU()), [[0, 1, 2, 3, 3]], "hold each of 0 to 4 once"),
    "negative": (chain(nn.ReLU()), [ROLLED - 1], "hold each of 0 to 4 once"),
    "floating point": (chain(nn.ReLU()), [ROLLED * 1.0], "5 integers, got float64"),
    "booleans": (chain(nn.ReLU()), [ROLLED > 1], "5 integers, got bool"),
    "a matrix": (chain(nn.ReLU()), [np.eye(5, dtype=int)], "5 integers"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_permute_units_leaves_the_function(name: str) -> None:
    model = RIGHT[name].eval()
    if name == "dead":
        with torch.no_grad():
            model[0].bias.fill_(-1e6)
    dtype = next(model.parameters()).dtype
    shape = (2, 8, 8) if "images" in name else (4,)
    inputs = normal(6, *shape).to(dtype)
    expected = model(inputs.clone())
    for orders in ([ROLLED], [ROLLED[::-1]], [ROLLED.astype(np.int32)], [ROLLED.tolist()]):
        permuted = permute_units(model, orders)
        error = (permuted(inputs.clone()) - expected).norm()
        assert error <= 50 * torch.finfo(dtype).eps * expected.norm()
        assert not torch.equal(permuted[0].weight, model[0].weight)
        aligned = align_units(model, permuted)
        assert (aligned(inputs.clone()) - expected).norm() <= 50 * EPS * expected.norm() * (
            torch.finfo(dtype).eps / EPS
        )


@pytest.mark.parametrize("name", WRONG)
def test_permute_units_refuses_another_function_and_names_the_layer(name: str) -> None:
    model, orders, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        permute_units(model, orders)


def test_permute_units_compares_on_the_inputs_that_are_given() -> None:
    # Units are treated unlike only where an input is beyond the random ones.
    class Rare(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(inputs)
            return torch.where(inputs[:, :1] > 1e3, outputs * torch.arange(1.0, 6.0), outputs)

    model = nn.Sequential(Rare(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    permute_units(model, [ROLLED])
    with pytest.raises(ValueError, match="another function from the units of layer 0"):
        permute_units(model, [ROLLED], 1e4 * normal(5, 4).abs())


def test_permute_units_needs_inputs_where_no_shape_fits() -> None:
    # 5 x 7 pixels: no square image gives as many inputs.
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(5 * 3 * 5, 3)).double()
    with pytest.raises(ValueError, match="pass some inputs of the network"):
        permute_units(model, [ROLLED])
    inputs = normal(4, 2, 5, 7)
    permuted = permute_units(model, [ROLLED], inputs)
    assert (permuted(inputs) - model(inputs)).abs().max() < 1e-13


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_match_units_refuses_weights_that_are_not_finite(value: float) -> None:
    model = chain(nn.ReLU())
    with torch.no_grad():
        model[2].weight[0, 0] = value
    with pytest.raises(ValueError, match="weights must be finite, got nan or inf in layer 2"):
        match_units(model, model)
