"""Orthogonal weights by Householder reflections are refused where they vary, and only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import assert_close, normal
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

import hesspipe
from hesspipe.objective.objective import Objective

SHAPES = [(4, 4), (4, 3), (3, 5), (4, 2)]
X = normal(6, 4, seed=1)


class Halved(nn.Module):
    """A parametrization of orthogonal weights."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def reflected(layer: nn.Module) -> nn.Module:
    return parametrizations.orthogonal(layer, orthogonal_map="householder")


def plain(layer: nn.Module) -> list[nn.Module]:
    return [reflected(layer), nn.Tanh()]


def halved(layer: nn.Module) -> list[nn.Module]:
    return [parametrize.register_parametrization(reflected(layer), "weight", Halved()), nn.Tanh()]


def normalized(layer: nn.Linear) -> list[nn.Module]:
    return [reflected(layer), nn.LayerNorm(layer.out_features)]


KINDS: dict[str, Callable[[nn.Linear], list[nn.Module]]] = {
    one.__name__: one for one in (plain, halved, normalized)
}


def network(kind: str, shape: tuple[int, int], *, head: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    last = nn.Linear(shape[1], 3)
    with torch.no_grad():
        last.weight.mul_(head)
    first = nn.Linear(4, shape[0])
    return nn.Sequential(first, nn.Tanh(), *KINDS[kind](nn.Linear(*shape)), last).double()


def targets_for(model: nn.Module) -> Tensor:
    return normal(len(X), 3, seed=2).to(next(model.parameters()))


# With a head of zeros the loss is continuous, and its gradient jumps; with a small one the jump is
# below what float32 shows of a loss.
@pytest.mark.parametrize("head", [1.0, 1e-4, 0.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reflections_that_vary_are_refused(
    shape: tuple[int, int], kind: str, dtype: torch.dtype, head: float
) -> None:
    model = network(kind, shape, head=head)
    with pytest.raises(ValueError, match=r"got 2\.parametrizations\.weight\..*by parameters=$"):
        Objective(model, nn.MSELoss(), (X, targets_for(model)), dtype=dtype)


def frozen(model: nn.Sequential) -> list[str] | None:
    for name, value in model.named_parameters():
        value.requires_grad_("parametrizations" not in name)
    return None


def left_out(model: nn.Sequential) -> list[str] | None:
    return [name for name, _ in model.named_parameters() if "parametrizations" not in name]


@pytest.mark.parametrize("hold", [frozen, left_out])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_hessian_beside_constant_reflections_is_that_of_double_backward(
    shape: tuple[int, int], kind: str, hold: Callable[[nn.Sequential], list[str] | None]
) -> None:
    model = network(kind, shape)
    patterns = hold(model)
    targets = targets_for(model)
    objective = Objective(model, nn.MSELoss(), (X, targets), parameters=patterns)
    varied = [value for name, value in model.named_parameters() if "parametrizations" not in name]
    loss = functional.mse_loss(model(X), targets)
    slopes = torch.autograd.grad(loss, varied, create_graph=True)
    rows = [
        torch.cat([
            part.flatten()
            for part in torch.autograd.grad(
                entry, varied, retain_graph=True, materialize_grads=True
            )
        ])
        for slope in slopes
        for entry in slope.flatten()
    ]  # fmt: skip
    assert_close(hesspipe.hessian_matrix(objective), torch.stack(rows), factor=200)


def test_reflections_are_refused_where_their_source_is_shared_and_varies() -> None:
    model = network("plain", (4, 4))
    shared = model[0].weight
    model[2].parametrizations.weight.original = shared
    with pytest.raises(ValueError, match="Householder"):
        Objective(model, nn.MSELoss(), (X, targets_for(model)), parameters=["0.weight"])
