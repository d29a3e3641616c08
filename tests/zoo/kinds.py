"""More kinds of model and loss that need torch only."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence
from zoo.case import Case, Row, classifier, integers, numbers, own_loss

X, Y = numbers(6, 4), integers(3, 6)
TOKENS = integers(11, 3, 6) + 1
LENGTHS = torch.tensor([6, 4, 2])
PADDED = TOKENS.masked_fill(torch.arange(6) >= LENGTHS[:, None], 0)


def _mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Denoiser(nn.Module):
    """A block of a diffusion U-Net: residual convolutions with the time, then attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.time, self.norm = nn.Linear(6, 4), nn.GroupNorm(2, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * torch.tensor([1.0, 0.1, 0.01]).to(time)
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        hidden = functional.silu(self.norm(self.first(noisy)) + embedding[:, :, None, None])
        flat = hidden.flatten(2).mT
        hidden = hidden + self.attention(flat, flat, flat)[0].mT.reshape(hidden.shape)
        return self.last(hidden)


def denoising(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The error of the predicted noise at given times."""
    share = (batch["time"] / 10).cos()[:, None, None, None]
    noisy = share * batch["images"] + (1 - share.square()).sqrt() * batch["noise"]
    return functional.mse_loss(model(noisy, batch["time"]), batch["noise"])


class SelectiveScan(nn.Module):
    """A state-space model whose step and gates depend on the input, as in Mamba."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.log_rate = nn.Parameter(torch.rand(4, 3))
        self.step, self.gates, self.head = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(4, 3)

    def forward(self, sequence: Tensor) -> Tensor:
        step, (into, out) = (
            functional.softplus(self.step(sequence)),
            self.gates(sequence).chunk(2, -1),
        )
        state, found = sequence.new_zeros(len(sequence), 4, 3), []
        for t in range(sequence.shape[1]):
            decay = (-step[:, t, :, None] * self.log_rate.exp()).exp()
            drive = (step[:, t] * sequence[:, t])[:, :, None] * into[:, t, None]
            state = decay * state + drive
            found.append((state * out[:, t, None]).sum(-1))
        return self.head(torch.stack(found, 1).mean(1))


class PackedLanguage(nn.Module):
    """A language model on packed sequences, with padding and tied embeddings."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(12, 5, padding_idx=0)
        self.layer, self.head = kind(5, 5, batch_first=True), nn.Linear(5, 12)
        self.head.weight = self.embed.weight


def packed_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The cross-entropy of each next token, without padding."""
    lengths = batch["lengths"] - 1

    def packed(values: Tensor) -> Any:
        return pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)

    states = model.layer(packed(model.embed(batch["tokens"][:, :-1])))[0]
    return functional.cross_entropy(model.head(states.data), packed(batch["tokens"][:, 1:]).data)


class SeededAutoencoder(nn.Module):
    """Draws its noise from a generator with the same seed in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _mlp(4, 6, 4), _mlp(2, 6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).to(mean)
        return self.decoder(mean + (log_variance / 2).exp() * noise), mean, log_variance


def evidence(model: nn.Module, x: Tensor) -> Tensor:
    """The negative evidence lower bound."""
    found, mean, log_variance = model(x)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean() / 2
    return functional.mse_loss(found, x) + divergence


def triplet(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Three views through one network."""
    return functional.triplet_margin_loss(*map(model, batch), margin=5.0)


class Flow(nn.Module):
    """A normalizing flow of two affine couplings (RealNVP)."""

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.ModuleList([_mlp(2, 6, 4), _mlp(2, 6, 4)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_volume = x.new_zeros(len(x))
        first, second = x.chunk(2, 1)
        for coupling in self.couplings:
            log_scale, shift = coupling(first).chunk(2, 1)
            first, second = second * log_scale.tanh().exp() + shift, first
            log_volume = log_volume + log_scale.tanh().sum(1)
        return torch.cat([first, second], 1), log_volume


def flow_loss(model: nn.Module, x: Tensor) -> Tensor:
    """The negative logarithm of the likelihood."""
    latent, log_volume = model(x)
    return (latent.square().sum(1) / 2 + 2 * math.log(2 * math.pi) - log_volume).mean()


class TwoTowers(nn.Module):
    """Two encoders and a learned temperature, as in CLIP."""

    def __init__(self) -> None:
        super().__init__()
        self.images, self.texts = _mlp(4, 5, 3), _mlp(3, 5, 3)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        first, second = (
            functional.normalize(encode(x), dim=-1)
            for encode, x in ((self.images, images), (self.texts, texts))
        )
        return self.log_scale.exp() * first @ second.T


def symmetric_contrast(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The cross-entropy of pairs in both directions."""
    logits, pairs = model(*batch), torch.arange(len(batch[0]))
    both = functional.cross_entropy(logits, pairs) + functional.cross_entropy(logits.T, pairs)
    return both / 2


class MaskedTransformer(nn.Module):
    """Layers of torch with a causal mask and a mask of padding."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(12, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) < 0
        hidden = self.layers(self.embed(tokens), causal, tokens == 0, is_causal=True)
        return self.head(hidden[:, 0])


class MultiTask(nn.Module):
    """A dictionary of outputs, and learned weights of the tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.log_variances = _mlp(4, 6), nn.Parameter(torch.zeros(2))
        self.heads = nn.ModuleDict({"kind": nn.Linear(6, 3), "size": nn.Linear(6, 1)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(x).tanh()
        return {name: head(hidden) for name, head in self.heads.items()}


def multi_task(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Both losses, weighted by their uncertainties (Kendall et al.)."""
    found = model(batch["x"])
    losses = torch.stack([
        functional.cross_entropy(found["kind"], batch["kind"]),
        functional.mse_loss(found["size"][:, 0], batch["size"]),
    ])  # fmt: skip
    return (losses * (-model.log_variances).exp() + model.log_variances).sum()


class Detector(nn.Module):
    """One box and one score for each cell of a grid."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 5, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.head(self.body(images).tanh()).flatten(2).mT
        return found[..., 0], found[..., 1:]


def detection(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The focal loss of the scores, and a smooth distance and the overlap of the boxes."""
    scores, boxes = model(batch["images"])
    target, is_object = batch["boxes"], batch["is_object"]
    cross = functional.binary_cross_entropy_with_logits(scores, is_object, reduction="none")
    correct = scores.sigmoid() * is_object + (1 - scores.sigmoid()) * (1 - is_object)
    focal = ((1 - correct).square() * cross).mean()
    low, high = boxes.chunk(2, -1)[0], boxes.chunk(2, -1)[0] + boxes.chunk(2, -1)[1].exp()
    aim = target[..., :2], target[..., :2] + target[..., 2:].exp()
    shared = (torch.minimum(high, aim[1]) - torch.maximum(low, aim[0])).clamp(min=0).prod(-1)
    either = (high - low).prod(-1) + (aim[1] - aim[0]).prod(-1) - shared
    distance = functional.smooth_l1_loss(boxes, target, reduction="none").sum(-1)
    return focal + (is_object * (distance + 1 - shared / either)).mean()


class Preference(nn.Module):
    """A policy and its frozen reference."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Embedding(12, 5), *_mlp(5, 6, 12))
        self.reference = copy.deepcopy(self.policy).requires_grad_(False)


def preference(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Direct preference optimization between two answers."""

    def margin(network: nn.Module) -> Tensor:
        good, bad = (
            network(tokens[:, :-1]).log_softmax(-1).gather(2, tokens[:, 1:, None]).sum((1, 2))
            for tokens in batch
        )
        return good - bad

    return -functional.logsigmoid(0.5 * (margin(model.policy) - margin(model.reference))).mean()


class Differential(nn.Module):
    """A neural differential equation, by four steps of Runge and Kutta."""

    def __init__(self) -> None:
        super().__init__()
        self.field, self.head = _mlp(4, 6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            one = self.field(x)
            two = self.field(x + one / 8)
            three = self.field(x + two / 8)
            x = x + (one + 2 * two + 2 * three + self.field(x + three / 4)) / 24
        return self.head(x)


class HyperNetwork(nn.Module):
    """A network that makes the weights of another, called by a function of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.code = _mlp(2, 5, 15), nn.Parameter(torch.tensor([0.3, -0.2]))
        self.target = nn.Linear(4, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.maker(self.code).split([12, 3])
        made = {"weight": weight.view(3, 4), "bias": bias}
        return torch.func.functional_call(self.target, made, (x,))


class GaussianProcess(nn.Module):
    """A kernel on learned features."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.log_noise = _mlp(4, 5, 2), nn.Parameter(torch.tensor(-1.0))


def evidence_of_process(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The negative logarithm of the marginal likelihood, by Cholesky."""
    features = model.features(batch[0])
    squares = (features[:, None] - features[None]).square().sum(-1)
    kernel = (-squares / 2).exp() + model.log_noise.exp() * torch.eye(len(features)).to(squares)
    factor = torch.linalg.cholesky(kernel)
    whitened = torch.linalg.solve_triangular(factor, batch[1][:, None], upper=False)
    return whitened.square().sum() / 2 + factor.diagonal().log().sum()


def transport(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The entropic distance between two sets of features, by ten steps of Sinkhorn."""
    first, second = map(model, batch)
    cost = (first[:, None] - second[None]).square().sum(-1)
    row, column = cost.new_zeros(len(cost)), cost.new_zeros(len(cost))
    for _ in range(10):
        row = -torch.logsumexp(column[None] - cost, 1)
        column = -torch.logsumexp(row[:, None] - cost, 0)
    return ((row[:, None] + column[None] - cost).exp() * cost).sum()


class Tied(nn.Module):
    """A large vocabulary with tied embeddings and padding; the output layer is a function."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.middle = nn.Embedding(size, 4, padding_idx=0), nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.middle(self.embed(tokens)).tanh()
        return functional.linear(hidden, self.embed.weight).transpose(1, 2)


def _embedding(**options: Any) -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(12, 4, **options), nn.Flatten(), nn.Linear(24, 3))
    return classifier(model, PADDED, integers(3, 3))


def _sparse() -> Case:
    """Compared with dense gradients: plain torch has no second derivatives of sparse ones."""
    sparse = _embedding(padding_idx=0, sparse=True)
    return replace(_embedding(padding_idx=0), objective=sparse.objective)


def _bag(**options: Any) -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(12, 4, **options), nn.Tanh(), nn.Linear(4, 3))
    return classifier(model, PADDED, integers(3, 3))


def _ctc() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.LogSoftmax(-1))
    sizes = torch.tensor([8, 8]), torch.tensor([3, 2])

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.ctc_loss(network(batch[0]).transpose(0, 1), batch[1], *sizes)

    return own_loss(model, (numbers(2, 8, 4), integers(5, 2, 3) + 1), loss)


def _spectral(*, is_training: bool) -> Case:
    model = _mlp(4, 5, 3)
    parametrizations.spectral_norm(model[0])
    model(X)
    return classifier(model.train(is_training), X, Y)


def _orthogonal() -> Case:
    model = _mlp(4, 4, 3)
    parametrizations.orthogonal(model[0], orthogonal_map="cayley")
    return classifier(model, X, Y)


def _masked(*, dropout: float = 0.0) -> Case:
    model = MaskedTransformer(dropout=dropout).train(dropout > 0)
    return classifier(model, PADDED, integers(3, 3))


def _packed(kind: type[nn.Module]) -> Case:
    return own_loss(PackedLanguage(kind), {"tokens": PADDED, "lengths": LENGTHS}, packed_loss)


def _denoiser() -> Case:
    images = {"images": numbers(3, 2, 4, 4), "noise": numbers(3, 2, 4, 4, seed=3)}
    return own_loss(Denoiser(), images | {"time": torch.tensor([1.0, 4.0, 9.0])}, denoising)


def _detector() -> Case:
    is_object = torch.zeros(2, 16)
    is_object[0, 3] = is_object[1, 7] = 1.0
    batch = {"images": numbers(2, 2, 8, 8), "boxes": 0.3 * numbers(2, 16, 4, seed=4)}
    return own_loss(Detector(), batch | {"is_object": is_object}, detection)


def _multi_task() -> Case:
    return own_loss(MultiTask(), {"x": X, "kind": Y, "size": numbers(6, seed=5)}, multi_task)


def _pairs(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], *others: Tensor) -> Case:
    return own_loss(model, (X, *others), loss)


ROWS = [
    Row("diffusion, a block with attention and time", _denoiser),
    Row("selective scan", lambda: classifier(SelectiveScan(), numbers(3, 5, 4), integers(3, 3))),
    Row("LSTM language model, packed, tied, with padding", lambda: _packed(nn.LSTM)),
    Row("GRU language model, packed, tied, with padding", lambda: _packed(nn.GRU)),
    Row("VAE, noise from a seed in each call", lambda: own_loss(SeededAutoencoder(), X, evidence)),
    Row(
        "triplets",
        lambda: _pairs(_mlp(4, 5, 3), triplet, numbers(6, 4, seed=7), numbers(6, 4, seed=8)),
    ),
    Row("normalizing flow", lambda: own_loss(Flow(), X, flow_loss)),
    Row(
        "contrast of two towers, learned temperature",
        lambda: _pairs(TwoTowers(), symmetric_contrast, numbers(6, 3, seed=7)),
    ),
    Row("object detection: focal loss and overlap", _detector),
    Row("several tasks, a dictionary of outputs", _multi_task),
    Row(
        "preferences (DPO) with a frozen reference",
        lambda: own_loss(Preference(), (TOKENS, TOKENS.flip(1)), preference),
    ),
    Row("neural differential equation", lambda: classifier(Differential(), X, Y)),
    Row("hypernetwork", lambda: classifier(HyperNetwork(), X, Y)),
    Row(
        "Gaussian process on features",
        lambda: _pairs(GaussianProcess(), evidence_of_process, numbers(6, seed=7)),
    ),
    Row("optimal transport", lambda: _pairs(_mlp(4, 5, 3), transport, numbers(6, 4, seed=7))),
    Row("transformer with both masks", _masked),
    Row("transformer with dropout", lambda: _masked(dropout=0.1), refusal="eval"),
    Row("spectral norm, evaluation mode", lambda: _spectral(is_training=False)),
    Row("spectral norm, training mode", lambda: _spectral(is_training=True), refusal="eval"),
    Row("orthogonal weights", _orthogonal),
    Row("CTC", _ctc, refusal="ctc_loss"),
    Row(
        "vocabulary of 30,000, tied, with padding",
        lambda: classifier(Tied(30_000), integers(9, 2, 5) * 3_333, integers(30_000, 2, 5, seed=2)),
    ),
    Row("embedding with sparse gradients and padding", _sparse),
    Row("embedding with max_norm", lambda: _embedding(max_norm=1.0), refusal="max_norm"),
    Row(
        "embedding with scale_grad_by_freq",
        lambda: _embedding(scale_grad_by_freq=True),
        refusal="scale_grad_by_freq",
    ),
    Row("bag of embeddings", lambda: _bag(mode="sum"), refusal="embedding_bag_backward"),
]
