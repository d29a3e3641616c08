"""Products of H and G by hesspipe and curvlinops, where both are right."""

from __future__ import annotations

import copy

import curvlinops
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import hesspipe
from battery.libraries import labels, normal
from battery.networks import convolutional, drawn, mlp, normalized_mlp

# Of central differences; their error is about its square, and rounding over it.
_DIFFERENCE_STEP = 1e-6


class WrittenOutNorm(nn.Module):
    """Layer normalization by elementary operations, with scale and shift."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.eps = 1e-5  # nn.LayerNorm's

    def forward(self, inputs: Tensor) -> Tensor:
        """The same numbers as nn.LayerNorm."""
        centered = inputs - inputs.mean(-1, keepdim=True)
        variance = centered.square().mean(-1, keepdim=True)
        return centered / (variance + self.eps).sqrt() * self.weight + self.bias


class Transformer(nn.Module):
    """Two layers of an encoder over 3 places."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        layer.norm1, layer.norm2 = norm(8), norm(8)
        self.embed, self.last = nn.Linear(2, 8), nn.Linear(24, 3)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of the classes."""
        outputs: Tensor = self.last(self.encoder(self.embed(inputs.view(-1, 3, 2))).flatten(1))
        return outputs


def networks() -> dict[str, nn.Module]:
    """Those that are compared."""
    # In training mode, without dropout: the fused layer of evaluation mode has no derivative.
    return {
        "MLP": mlp(),
        "convolutional": convolutional(),
        "batch norm, evaluation mode": normalized_mlp().eval(),
        "transformer, layer norm written out": drawn(Transformer(WrittenOutNorm)).train(),
        "transformer, nn.LayerNorm": drawn(Transformer(nn.LayerNorm)).train(),
    }


def cross_check() -> dict[str, tuple[int, list[float]]]:
    """P, and the largest relative differences of products.

    Of H and G between the two libraries, and of H by each from central differences of the
    gradient, which use no second derivative.
    """
    rows = {}
    inputs, targets = normal(23, 6), labels(23)
    data = list(zip(inputs.split(8), targets.split(8), strict=True))
    for name, model in networks().items():
        loss_fn, parameters = nn.CrossEntropyLoss(), list(model.parameters())
        objective = hesspipe.Objective(model, loss_fn, data)
        vectors = normal(4, objective.num_parameters, seed=6)
        products = {}
        for matrix, own, other in (
            ("hessian", hesspipe.HessianOperator, curvlinops.HessianLinearOperator),
            ("ggn", hesspipe.GGNOperator, curvlinops.GGNLinearOperator),
        ):
            ours = (own(objective) @ vectors.T).T
            with sdpa_kernel(SDPBackend.MATH):
                theirs = (other(model, loss_fn, parameters, data) @ vectors.T).T
            products[matrix] = (ours, theirs)
        differences = by_differences(model, inputs, targets, vectors)
        pairs = [*products.values(), *((one, differences) for one in products["hessian"])]
        errors = [float((one - other).abs().max() / other.abs().max()) for one, other in pairs]
        rows[name] = (objective.num_parameters, errors)
    return rows


def by_differences(model: nn.Module, inputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
    """Central differences of the gradient along each vector, (K, P)."""
    model = copy.deepcopy(model)
    start = nn.utils.parameters_to_vector(model.parameters()).detach()

    def gradient(theta: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(theta, model.parameters())
        loss = functional.cross_entropy(model(inputs), targets)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    step = _DIFFERENCE_STEP
    return torch.stack(
        [(gradient(start + step * v) - gradient(start - step * v)) / (2 * step) for v in vectors]
    )
