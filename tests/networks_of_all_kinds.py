"""Small networks as users write them, with data: hooks, views, branches, sequences, mappings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from dense_reference import reference_matrices
from problems import labels, normal
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Case:
    """A network with one batch of data; `call` evaluates it as its author would."""

    model: nn.Module
    inputs: Any
    targets: Any
    loss_fn: Callable[[Any, Any], Tensor]

    def call(self, model: nn.Module) -> Any:
        if isinstance(self.inputs, dict) and not isinstance(self.model, OfMapping):
            return model(**self.inputs)
        return model(*self.inputs) if isinstance(self.inputs, tuple) else model(self.inputs)

    def loss(self, outputs: Any) -> Tensor:
        return self.loss_fn(outputs, self.targets)


def initialized(model: nn.Module, std: float = 0.6) -> nn.Module:
    """Convert to float64, with normal parameters; structures such as biases of zero are lost."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(std * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return model


def mlp(*widths: int, act: type[nn.Module] = nn.Tanh, last: tuple[nn.Module, ...] = ()) -> Any:
    """A fully connected network with layers at its end."""
    parts: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        parts += [nn.Linear(fan_in, fan_out), act()]
    return initialized(nn.Sequential(*parts[:-1], *last))


class WithForward(nn.Module):
    """Two or three layers and a function of them."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*self.layers, *args, **kwargs)


def forward(function: Callable[..., Any], *layers: nn.Module) -> nn.Module:
    return initialized(WithForward(function, *layers))


class OfMapping(nn.Module):
    """A forward method that takes one mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = self.last(torch.tanh(self.first(batch["x"])) * batch["scale"])
        return outputs


class Shifted(nn.Linear):
    """A subclass of Linear with another forward method."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + self.bias.sum())


class Positive(nn.Module):
    """A parametrization by positive numbers."""

    def forward(self, values: Tensor) -> Tensor:
        return functional.softplus(values)


def squeezed(first: nn.Module, last: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = last(torch.tanh(first(x)))
    return outputs.squeeze(-1)


def reused(layer: nn.Module, head: nn.Module, x: Tensor) -> Any:
    return head(torch.tanh(layer(torch.tanh(layer(x)))))


def by_keyword(first: nn.Module, last: nn.Module, x: Tensor) -> Any:
    return last(input=torch.tanh(first(input=x)))


def functional_use(first: nn.Linear, last: nn.Module, x: Tensor) -> Any:
    return last(torch.tanh(functional.linear(x, first.weight, first.bias)))


def used_in_both_ways(first: nn.Linear, last: nn.Module, x: Tensor) -> Any:
    return last(torch.tanh(first(x)) @ first.weight)


def tied(encoder: nn.Linear, x: Tensor) -> Tensor:
    hidden: Tensor = torch.relu(encoder(x)) @ encoder.weight
    return hidden


def branched(first: nn.Module, last: nn.Module, extra: nn.Module, x: Tensor) -> Any:
    hidden = torch.tanh(first(x))
    return torch.where(x[:, :1] > 1.5, extra(hidden), last(hidden))


def rarely_used(first: nn.Module, last: nn.Module, extra: nn.Module, x: Tensor) -> Any:
    hidden = torch.relu(first(x))
    return last(extra(hidden) if (x[:, 0] > 1.5).any() else hidden)


def curved_late(first: nn.Module, last: nn.Module, x: Tensor) -> Any:
    hidden = first(x)
    return last(torch.where(x[:, :1] > 1.5, hidden.square(), torch.relu(hidden)))


def flipped(first: nn.Module, last: nn.Module, x: Tensor) -> Any:
    return last(torch.tanh(first(x.flip(0)).flip(0)))


def in_place(first: nn.Module, last: nn.Module, x: Tensor) -> Any:
    hidden = first(x).mul_(2).tanh_()
    outputs = last(hidden)
    outputs += 1
    return outputs


def centered(first: nn.Module, last: nn.Module, x: Tensor) -> Any:
    hidden = first(x)
    return last(torch.tanh(hidden - hidden.mean(0)))


def batch_statistics(first: nn.Module, last: nn.Module, x: Tensor) -> Any:
    return last(torch.tanh(functional.batch_norm(first(x), None, None, training=True)))


def positions(first: nn.Module, last: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = last(torch.tanh(first(x)))
    return outputs.flatten(0, 1)


def time_first(layer: nn.Module, head: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = head(layer(x)[0])
    return outputs


def as_dictionary(first: nn.Module, last: nn.Module, x: Tensor) -> dict[str, Any]:
    hidden = torch.tanh(first(x))
    return {"logits": last(hidden), "features": hidden}


def mean_and_variance(first: nn.Module, last: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    outputs = last(torch.tanh(first(x)))
    return outputs[:, :1], functional.softplus(outputs[:, 1:]) + 0.1


def attended(attention: nn.Module, head: nn.Module, x: Tensor) -> Any:
    return head(torch.tanh(attention(x, x, x, need_weights=False)[0]).mean(1))


def checkpointed(first: nn.Module, last: nn.Module, x: Tensor) -> Any:
    return last(checkpoint(lambda z: torch.tanh(first(z)), x, use_reentrant=False))


def slope(first: nn.Module, last: nn.Module, x: Tensor) -> Tensor:
    point = x.clone().requires_grad_()
    value = last(torch.tanh(first(point))).sum()
    return torch.autograd.grad(value, point, create_graph=True)[0]


def summed(first: nn.Module, last: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = last(torch.tanh(first(x)))
    return outputs.square().mean()


def bagged(embedding: nn.Module, head: nn.Module, x: Tensor) -> Any:
    return head(torch.tanh(embedding(x).mean(1)))


def two_inputs(first: nn.Module, last: nn.Module, *, x: Tensor, y: Tensor) -> Any:
    return last(torch.tanh(first(x)) * y)


def dead(first: nn.Module, last: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = last(torch.tanh(first(x)))
    return torch.relu(outputs - 1e3)


def pruned() -> nn.Module:
    model = mlp(3, 4, 3)
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def hooked(kind: str) -> nn.Module:
    model = mlp(3, 4, 3)
    if kind == "forward":
        model[0].register_forward_hook(lambda module, args, output: output.square())
    else:
        model[2].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return model


def overridden() -> nn.Module:
    model = mlp(3, 4, 3)
    model[0].forward = MethodType(sine_of_linear, model[0])
    return model


def sine_of_linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    return nn.Linear.forward(layer, inputs).sin()


def parametrized() -> nn.Module:
    model = mlp(3, 4, 3)
    parametrize.register_parametrization(model[0], "weight", Positive())
    return model


def with_zeros() -> nn.Module:
    model = forward(tied, nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        next(model.parameters()).zero_()
    return model


class Buffered(nn.Module):
    """A matrix of the size of the data between the layers, as in a graph network."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 3)
        self.register_buffer("graph", normal(size, size, seed=8))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.tanh(self.graph @ self.first(x)))
        return outputs


def cross_entropy_of_logits(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    penalty = outputs["features"].square().sum(1).mean()
    return functional.cross_entropy(outputs["logits"], targets) + 0.1 * penalty


def gaussian(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    return functional.gaussian_nll_loss(outputs[0], targets, outputs[1])


def itself(outputs: Tensor, _: Any) -> Tensor:
    return outputs


def unit_length(outputs: Tensor, _: Tensor) -> Tensor:
    return (outputs.norm(dim=1) - 1).square().mean()


def late_inputs(count: int) -> Tensor:
    """Inputs of which only the last sample has a first entry above 1.5."""
    inputs = normal(count, 3)
    inputs[:, 0].clamp_(max=1.0)
    inputs[-1, 0] = 2.0
    return inputs


def _pairs() -> tuple[nn.Module, nn.Module]:
    return nn.Linear(3, 4), nn.Linear(4, 3)


_CE, _MSE = functional.cross_entropy, functional.mse_loss
_X, _K, _Y = normal(7, 3), labels(7, 3), normal(7, 3, seed=5)
_SEQUENCE, _STEPS = normal(4, 5, 3), labels(20, 3).view(4, 5)
_IGNORING = torch.where(normal(4, 5, seed=6) > 0.5, -100, _STEPS)

KINDS: dict[str, Callable[[], Case]] = {
    "relu": lambda: Case(mlp(3, 4, 3, act=nn.ReLU), _X, _K, _CE),
    "flatten all": lambda: Case(mlp(3, 4, 1, last=(nn.Flatten(0),)), _X, _Y[:, 0], _MSE),
    "squeeze": lambda: Case(
        forward(squeezed, nn.Linear(3, 4), nn.Linear(4, 1)), _X, _Y[:, 0], _MSE
    ),
    "pruned": lambda: Case(pruned(), _X, _K, _CE),
    "forward hook": lambda: Case(hooked("forward"), _X, _K, _CE),
    "forward pre-hook": lambda: Case(hooked("pre"), _X, _K, _CE),
    "own forward method": lambda: Case(overridden(), _X, _K, _CE),
    "parametrized": lambda: Case(parametrized(), _X, _K, _CE),
    "subclass": lambda: Case(forward(squeezed, Shifted(3, 4), nn.Linear(4, 3)), _X, _K, _CE),
    "reused": lambda: Case(forward(reused, nn.Linear(3, 3), nn.Linear(3, 3)), _X, _K, _CE),
    "keyword": lambda: Case(forward(by_keyword, *_pairs()), _X, _K, _CE),
    "functional use": lambda: Case(forward(functional_use, *_pairs()), _X, _K, _CE),
    "used in both ways": lambda: Case(
        forward(used_in_both_ways, nn.Linear(3, 4), nn.Linear(3, 3)), _X, _K, _CE
    ),
    "tied": lambda: Case(forward(tied, nn.Linear(3, 4)), _X, _Y, _MSE),
    "tied, zeros": lambda: Case(with_zeros(), _X, _Y, _MSE),
    "branch": lambda: Case(
        forward(branched, *_pairs(), nn.Linear(4, 3)), late_inputs(40), labels(40, 3), _CE
    ),
    "rarely used layer": lambda: Case(
        forward(rarely_used, *_pairs(), nn.Linear(4, 4)), late_inputs(40), labels(40, 3), _CE
    ),
    "curved late": lambda: Case(
        forward(curved_late, *_pairs()), late_inputs(40), labels(40, 3), _CE
    ),
    "flipped": lambda: Case(forward(flipped, *_pairs()), _X, _K, _CE),
    "in place": lambda: Case(forward(in_place, *_pairs()), _X, _K, _CE),
    "centered": lambda: Case(forward(centered, *_pairs()), _X, _K, _CE),
    "batch statistics": lambda: Case(forward(batch_statistics, *_pairs()), _X, _K, _CE),
    "positions as rows": lambda: Case(
        forward(positions, *_pairs()), _SEQUENCE, _STEPS.flatten(), _CE
    ),
    "ignored positions": lambda: Case(
        forward(positions, *_pairs()), _SEQUENCE, _IGNORING.flatten(), _CE
    ),
    "time first": lambda: Case(
        forward(time_first, nn.LSTM(3, 2), nn.Linear(2, 3)),
        _SEQUENCE, normal(4, 5, 3, seed=7), _MSE,
    ),
    "segmentation": lambda: Case(
        initialized(nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Conv2d(2, 3, 1))),
        normal(3, 1, 3, 3), labels(12, 3).view(3, 2, 2), _CE,
    ),
    "convolutions": lambda: Case(
        initialized(
            nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        ),
        normal(5, 1, 3, 3), labels(5, 3), _CE,
    ),
    "dictionary of outputs": lambda: Case(
        forward(as_dictionary, *_pairs()), _X, _K, cross_entropy_of_logits
    ),
    "tuple of outputs": lambda: Case(
        forward(mean_and_variance, nn.Linear(3, 4), nn.Linear(4, 2)), _X, _Y[:, :1], gaussian
    ),
    "attention": lambda: Case(
        forward(attended, nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(2, 3)),
        normal(4, 3, 2), labels(4, 3), _CE,
    ),
    "checkpoint": lambda: Case(forward(checkpointed, *_pairs()), _X, _K, _CE),
    "slope": lambda: Case(
        forward(slope, nn.Linear(3, 4), nn.Linear(4, 1)), _X, torch.zeros(7, 3), unit_length
    ),
    "scalar": lambda: Case(forward(summed, *_pairs()), _X, torch.zeros(7), itself),
    "embedding": lambda: Case(
        forward(bagged, nn.Embedding(6, 3), nn.Linear(3, 3)), labels(14, 6).view(7, 2), _K, _CE
    ),
    "keywords": lambda: Case(
        forward(two_inputs, *_pairs()), {"x": _X, "y": normal(7, 4, seed=9)}, _K, _CE
    ),
    "mapping": lambda: Case(
        initialized(OfMapping()), {"x": _X, "scale": normal(7, 4, seed=9)}, _K, _CE
    ),
    "graph": lambda: Case(initialized(Buffered(7)), _X, _K, _CE),
    "dead": lambda: Case(forward(dead, *_pairs()), _X, _Y, _MSE),
}  # fmt: skip


def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    return _MSE(outputs, targets).sqrt()


def correlation(outputs: Tensor, targets: Tensor) -> Tensor:
    one, other = outputs - outputs.mean(), targets - targets.mean()
    return 1 - (one * other).sum() / (one.norm() * other.norm())


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    one, other = functional.normalize(outputs, dim=1), functional.normalize(targets, dim=1)
    return _CE(one @ other.T / 0.5, torch.arange(len(outputs)))


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.softmax(1) - functional.one_hot(targets, 3)).square().sum(1).mean()


def cosine(outputs: Tensor, targets: Tensor) -> Tensor:
    return (1 - functional.cosine_similarity(outputs, targets)).mean()


def cauchy(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.log1p((outputs - targets).square()).mean()


def welsch(outputs: Tensor, targets: Tensor) -> Tensor:
    return (1 - torch.exp(-(outputs - targets).square() / 2)).mean()


def geman_mcclure(outputs: Tensor, targets: Tensor) -> Tensor:
    squares = (outputs - targets).square()
    return (squares / (1 + squares)).mean()


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    log_likelihood = -functional.cross_entropy(outputs, targets, reduction="none")
    return -((1 - log_likelihood.exp()).square() * log_likelihood).mean()


def normal_with_scale(outputs: Tensor, targets: Tensor) -> Tensor:
    scale = functional.softplus(outputs[:, 1]) + 0.1
    return -torch.distributions.Normal(outputs[:, 0], scale).log_prob(targets[:, 0]).mean()


def normal_of_positive_scale(outputs: Tensor, targets: Tensor) -> Tensor:
    """Not defined at outputs of zero."""
    distribution = torch.distributions.Normal(outputs[:, 0], outputs[:, 1])
    return -distribution.log_prob(targets[:, 0]).mean()


def concave(outputs: Tensor, _: Tensor) -> Tensor:
    return -outputs.square().sum(1).mean()


def linear(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs * targets).mean()


def variance(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.var(0).sum()


def of_pairs(outputs: Tensor, targets: Tensor) -> Tensor:
    distances = (outputs.unsqueeze(1) - outputs).square().sum(2)
    return (torch.log1p(distances) * targets.sum(1)).mean()


LOSSES: dict[str, tuple[Callable[[Any, Any], Tensor], Tensor]] = {
    "cross-entropy": (_CE, _K),
    "smoothed": (partial(_CE, label_smoothing=0.1), _K),
    "ignored": (_CE, torch.where(_K == 1, -100, _K)),
    "squares": (_MSE, _Y),
    "huber": (nn.HuberLoss(), _Y),
    "poisson": (nn.PoissonNLLLoss(), _Y.abs()),
    "binary": (nn.BCEWithLogitsLoss(), (_Y > 0).double()),
    "divergence": (
        lambda o, t: functional.kl_div(o.log_softmax(1), t, reduction="batchmean"), _Y.softmax(1)
    ),
    "rmse": (rmse, _Y),
    "correlation": (correlation, _Y),
    "contrastive": (contrastive, _Y),
    "brier": (brier, _K),
    "cosine": (cosine, _Y),
    "cauchy": (cauchy, _Y),
    "welsch": (welsch, _Y),
    "geman-mcclure": (geman_mcclure, _Y),
    "focal": (focal, _K),
    "normal": (normal_with_scale, _Y),
    "concave": (concave, _Y),
    "linear": (linear, _Y),
    "variance": (variance, _Y),
    "pairs": (of_pairs, _Y),
}  # fmt: skip


def with_loss(name: str, activation: str) -> Case:
    """A small network with a loss of this name."""
    loss_fn, targets = LOSSES[name]
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
    return Case(mlp(3, 4, 3, act=act), _X, targets, loss_fn)


def positive_scale() -> Case:
    """A network with a scale as output, which the loss requires to be positive."""
    model = forward(
        lambda first, last, x: torch.cat(mean_and_variance(first, last, x), 1),
        nn.Linear(3, 4), nn.Linear(4, 2),
    )  # fmt: skip
    return Case(model, _X, _Y, normal_of_positive_scale)


def join(outputs: Any) -> Tensor:
    """All outputs as one vector."""
    if isinstance(outputs, Tensor):
        return outputs.flatten()
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.cat([part.flatten() for part in parts])


def splitter(outputs: Any) -> Callable[[Tensor], Any]:
    """The inverse of `join` for outputs like these."""
    if isinstance(outputs, Tensor):
        return lambda vector: vector.view(outputs.shape)
    parts = list(outputs.values()) if isinstance(outputs, dict) else list(outputs)

    def split(vector: Tensor) -> Any:
        pieces = vector.split([part.numel() for part in parts])
        shaped = [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
        return dict(zip(outputs, shaped, strict=True)) if isinstance(outputs, dict) else shaped

    return split


def reference(case: Case) -> dict[str, Tensor]:
    """H, G and R of a case, by loops of double backward."""
    split = splitter(case.call(case.model))
    for module in case.model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):  # a pruned weight, which its hook computes anew
                setattr(module, name, value.detach())
    return reference_matrices(case.model, case.call, case.loss, join, split)
