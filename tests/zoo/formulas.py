"""Networks that are formulas: fields, state spaces, solvers, quantizers; they need torch only."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence
from zoo.case import Case, Row, classifier, integers, numbers, own_loss
from zoo.further import by_formula

X, Y = numbers(6, 4), integers(3, 6)


def _chain(*layers: nn.Module) -> nn.Sequential:
    """Layers whose initial values come from one seed."""
    torch.manual_seed(0)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return nn.Sequential(*layers)


class Field(nn.Module):
    """A field of sines (SIREN)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _chain(nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1))

    def forward(self, places: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(second(first(places).mul(30).sin()).sin())


class Radiance(nn.Module):
    """Colors along rays (NeRF): densities and colors of five points are composed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _chain(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, rays: Tensor) -> Tensor:
        depths = torch.linspace(0.5, 2, 5).to(rays)[:, None]
        points = rays[:, None, :3] + depths * rays[:, None, 3:]
        found = self.body(torch.cat([points.sin(), points.cos()], -1))
        opacity = 1 - (-0.3 * functional.softplus(found[..., 0])).exp()
        before = torch.cat([torch.ones_like(opacity[:, :1]), 1 - opacity[:, :-1]], 1).cumprod(1)
        return ((before * opacity)[..., None] * found[..., 1:].sigmoid()).sum(1)


class Recommender(nn.Module):
    """Products of embeddings of categories, and of a dense vector (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tables = nn.ModuleList([nn.Embedding(10, 4) for _ in range(3)])
        self.below, self.above = nn.Linear(5, 4), nn.Linear(10, 1)

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        first = self.below(dense).relu()
        lookups = [table(categories[:, place]) for place, table in enumerate(self.tables)]
        vectors = torch.stack([first, *lookups], 1)
        rows, columns = torch.tril_indices(4, 4, -1)
        return self.above(torch.cat([first, (vectors @ vectors.mT)[:, rows, columns]], 1))[:, 0]


class StateSpace(nn.Module):
    """A convolution with the kernel of a complex state space (S4D), kept as pairs of numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.log_rate, self.pairs = nn.Parameter(torch.rand(3)), nn.Parameter(torch.randn(3, 2))
        self.head = nn.Linear(1, 3)

    def forward(self, signal: Tensor) -> Tensor:
        length = signal.shape[1]
        poles = torch.complex(-self.log_rate.exp(), torch.arange(3).to(signal))
        powers = (poles * torch.arange(length).to(signal)[:, None]).exp()
        kernel = (torch.view_as_complex(self.pairs) * powers).sum(-1).real
        spectra = torch.fft.rfft(signal, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        output = torch.fft.irfft(spectra, n=2 * length)[:, :length]
        return self.head(output.tanh().sum(1, keepdim=True))


class Frequencies(nn.Module):
    """Multiplies frequencies by parameters that are complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.factors, self.head = nn.Parameter(torch.ones(3, dtype=torch.cfloat)), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.fft.irfft(torch.fft.rfft(inputs) * self.factors, n=4))


class Transformed(nn.Module):
    """A spatial transformer: the images are sampled where a network says."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mode, self.place, self.head = mode, nn.Linear(72, 6), nn.Linear(72, 3)

    def forward(self, images: Tensor) -> Tensor:
        plain = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).to(images)
        change = 0.1 * self.place(images.flatten(1)).view(-1, 2, 3)
        grid = functional.affine_grid(plain + change, list(images.shape), align_corners=False)
        found = functional.grid_sample(images, grid, mode=self.mode, align_corners=False)
        return self.head(found.flatten(1))


class Recurrent(nn.Module):
    """A recurrent layer of two directions on sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.GRU(4, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            sequences, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states = self.layer(packed)[1]
        return self.head(torch.cat([states[0], states[1]], 1))


class Ensemble(nn.Module):
    """Three networks at once, by `torch.vmap` over their stacked weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.shifts = (
            nn.Parameter(torch.randn(3, 3, 4)),
            nn.Parameter(torch.zeros(3, 3)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        every = torch.vmap(functional.linear, in_dims=(None, 0, 0))
        return every(inputs, self.weights, self.shifts).tanh().mean(0)


class Equilibrium(nn.Module):
    """A fixed point of a layer, found with or without gradients."""

    def __init__(self, *, is_unrolled: bool) -> None:
        super().__init__()
        self.into, self.again, self.head = _chain(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3))
        self.again.weight.data *= 0.3
        self.is_unrolled = is_unrolled

    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros(len(inputs), 5)
        with torch.set_grad_enabled(self.is_unrolled):
            for _ in range(40):
                state = (self.into(inputs) + self.again(state)).tanh()
        return self.head((self.into(inputs) + self.again(state)).tanh())


class Codebook(nn.Module):
    """Takes the nearest of five vectors, with the gradient of none (VQ-VAE)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = _chain(nn.Linear(4, 3), nn.Linear(3, 3))
        self.codes = nn.Parameter(torch.randn(5, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.encode(inputs)
        nearest = self.codes[torch.cdist(found, self.codes).argmin(1)]
        return self.decode(found + (nearest - found).detach())


class Splines(nn.Module):
    """Learned functions on edges (Kolmogorov and Arnold), as sums of bumps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heights, self.centers = (
            nn.Parameter(torch.randn(4, 3, 5)),
            nn.Parameter(torch.linspace(-2, 2, 5)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        bumps = (-(inputs[..., None] - self.centers).square()).exp()
        return torch.einsum("nik,ijk->nj", bumps, self.heights)


class Counted(nn.Module):
    """Counts its calls in an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.long))

    def forward(self, inputs: Tensor) -> Tensor:
        self.num_calls += 1
        return self.layer(inputs)


class Symmetric(nn.Module):
    """Makes a weight symmetric."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


def _adapted_once(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """The loss after one step of gradient descent on other data (MAML)."""
    named = dict(model.named_parameters())
    inputs, targets, others, labels = batch

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    slopes = torch.func.grad(loss)(named, inputs, targets)
    return loss({name: value - 0.1 * slopes[name] for name, value in named.items()}, others, labels)


def _score(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Sliced score matching, with a forward derivative in the inputs."""
    points, directions = batch
    scores, changes = torch.func.jvp(model, (points,), (directions,))
    return ((changes * directions).sum(1) + scores.square().sum(1) / 2).mean()


class ManyWords(nn.Module):
    """A softmax in parts, for rare words."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.softmax = nn.Linear(4, 8), nn.AdaptiveLogSoftmaxWithLoss(8, 10, [4])


def _rounded(*, is_on: bool) -> Case:
    model = _chain(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        quantization.prepare_qat(model, inplace=True)(X)
    if not is_on:
        model.apply(quantization.disable_fake_quant).apply(quantization.disable_observer)
    return classifier(model, X, Y)


def _normalized() -> Case:
    model = _chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    parametrizations.weight_norm(model[0])
    return by_formula(classifier(model, X, Y))


def _symmetric() -> Case:
    model = _chain(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    return classifier(model, X, Y)


def _recommender() -> Case:
    clicks = (integers(2, 6) > 0).float()
    loss_fn = functional.binary_cross_entropy_with_logits
    return classifier(Recommender(), (numbers(6, 5), integers(10, 6, 3)), clicks, loss_fn=loss_fn)


def _on(make: Callable[[], nn.Module]) -> Callable[[], Case]:
    return lambda: classifier(make(), X, Y)


def _batch_norm() -> Case:
    model = _chain(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(network(batch[0]), batch[1])

    return own_loss(model.train(), (X, Y), loss)


def _mse(model: nn.Module, inputs: Tensor, *shape: int) -> Case:
    return classifier(model, inputs, numbers(*shape, seed=2).sigmoid(), loss_fn=functional.mse_loss)


TASKS = (X, Y, numbers(6, 4, seed=4), integers(3, 6, seed=9))
ROWS = [
    Row("field of sines (SIREN)", lambda: _mse(Field(), numbers(6, 2), 6, 1)),
    Row("colors along rays (NeRF)", lambda: _mse(Radiance(), numbers(4, 6), 4, 3)),
    Row("recommender with embeddings (DLRM)", _recommender),
    Row(
        "complex state space as pairs (S4D)",
        lambda: classifier(StateSpace(), numbers(4, 8), integers(3, 4)),
    ),
    Row("complex parameters", _on(Frequencies), refusal="must be real, got factors"),
    *(
        Row(
            f"spatial transformer, {mode}",
            lambda mode=mode: classifier(Transformed(mode), numbers(3, 2, 6, 6), integers(3, 3)),
        )
        for mode in ("bilinear", "bicubic")
    ),
    Row(
        "GRU of two directions, lengths in the data",
        lambda: classifier(
            Recurrent(), (numbers(3, 5, 4), torch.tensor([5, 2, 3])), integers(3, 3)
        ),
    ),
    Row("weight normalization by its formula", _normalized),
    Row("symmetric weights, a parametrization", _symmetric),
    Row("ensemble by vmap", _on(Ensemble)),
    Row("learned functions on edges (KAN)", _on(Splines)),
    Row("equilibrium, unrolled", _on(lambda: Equilibrium(is_unrolled=True))),
    Row(
        "equilibrium, without gradients",
        _on(lambda: Equilibrium(is_unrolled=False)),
        refusal="no_grad",
    ),
    Row("nearest code (VQ-VAE)", _on(Codebook), refusal="detached"),
    Row(
        "after a step on another task (MAML)",
        lambda: own_loss(_chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), TASKS, _adapted_once),
    ),
    Row(
        "score matching, jvp in the inputs",
        lambda: own_loss(
            _chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)), (X, numbers(6, 4, seed=8)), _score
        ),
    ),
    Row(
        "softmax in parts, for rare words",
        lambda: own_loss(
            ManyWords(),
            (X, integers(10, 6)),
            lambda net, b: net.softmax(net.layer(b[0]), b[1]).loss,
        ),
    ),
    Row(
        "rounded weights, trained (QAT)", lambda: _rounded(is_on=True), refusal="disable_fake_quant"
    ),
    Row("rounded weights, turned off (QAT)", lambda: _rounded(is_on=False)),
    Row("call counter in a buffer", _on(Counted), refusal="buffer num_calls"),
    Row("batch normalization in training mode, one batch", _batch_norm, refusal="call model.eval"),
    Row(
        "layers of unknown size, not called",
        _on(lambda: nn.Sequential(nn.LazyLinear(3))),
        refusal="call the model once",
    ),
]
