"""Questions on products with H and G, by family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from battery.libraries import FunctionLoss, Question, labels, make_question, normal
from battery.networks import (
    Attention,
    Checkpointed,
    DetachedForSome,
    Places,
    Recurrent,
    Slope,
    Tied,
    between,
    convolutional,
    drawn,
    dropout_function,
    embedding,
    ending,
    frozen_mlp,
    in_float32,
    layers,
    mlp,
    normalized_mlp,
    pruned_networks,
    square_with_constant_slope,
    straight_through,
    unused_mlp,
    weight_norm_networks,
    with_noise,
)

Asked = Callable[[], Question]

CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)


def number_of(outputs: Any, targets: Any) -> float:
    """The denominator of a mean over samples."""
    return float(len(targets))


def with_ignored_labels() -> Tensor:
    """Most of the first batch is ignored."""
    targets = labels(23)
    targets[:8:2] = targets[1:6:4] = -100
    return targets


def ignored_tokens() -> Tensor:
    """Labels at 5 places, of which sentences of different lengths leave some ignored."""
    targets = labels(23 * 5).view(23, 5)
    lengths = torch.arange(23) // 5 + 1
    return targets.masked_fill(torch.arange(5) >= lengths.unsqueeze(1), -100)


def binary(*shape: int) -> Tensor:
    """Targets 0 and 1."""
    return (normal(*shape, seed=3) > 0).double()


def gaussian_nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """The model returns the mean and, before softplus, the variance."""
    variance = functional.softplus(outputs[:, 1:])
    return functional.gaussian_nll_loss(outputs[:, :1], targets, variance)


def variance_outputs_nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """The model returns the mean and the variance, positive."""
    return functional.gaussian_nll_loss(outputs[:, :1], targets, outputs[:, 1:])


class MeanAndVariance(nn.Module):
    """The second output is made positive."""

    def forward(self, outputs: Tensor) -> Tensor:
        """Apply to the outputs of the last layer."""
        return torch.cat([outputs[:, :1], functional.softplus(outputs[:, 1:])], 1)


def user_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    """A cross-entropy written by the user."""
    return -(outputs.log_softmax(1).gather(1, targets.unsqueeze(1))).mean()


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the probabilities from the label; not convex in the outputs."""
    return (outputs.softmax(1) - functional.one_hot(targets, 3)).square().sum(1).mean()


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with a factor that fades for safe samples (Lin et al. 2017)."""
    log_p = outputs.log_softmax(1).gather(1, targets.unsqueeze(1))
    return -((1 - log_p.exp()) ** 2 * log_p).mean()


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    """InfoNCE: every sample is compared with all others of its batch."""
    scores = functional.normalize(outputs) @ functional.normalize(targets).T
    return functional.cross_entropy(scores / 0.5, torch.arange(len(outputs)))


def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    """A function of a mean."""
    return functional.mse_loss(outputs, targets).sqrt()


def correlation(outputs: Tensor, targets: Tensor) -> Tensor:
    """One minus the correlation coefficient over the batch."""
    one, other = (outputs - outputs.mean()).flatten(), (targets - targets.mean()).flatten()
    return 1 - functional.cosine_similarity(one, other, dim=0)


def squared_outside(outputs: Tensor, targets: Tensor) -> Tensor:
    """The right answer for targets without the dimension of the outputs, or with one more."""
    return (outputs.flatten() - targets.flatten()).square().mean()


def in_single(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that computes in float32."""
    return functional.cross_entropy(outputs.float(), targets).double()


def squared_absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    """Its second derivative at 0 is 2; torch returns 0."""
    return (outputs - targets).abs().pow(2).mean()


def squared_norm(outputs: Tensor, targets: Tensor) -> Tensor:
    """The same for vectors."""
    return (outputs - targets).norm(dim=1).square().mean()


def mean_of_squared_norms(outputs: Tensor, targets: Tensor) -> Tensor:
    """The intended function of the two above."""
    return (outputs - targets).square().sum(1).mean()


def user(function: Callable[[Any, Any], Tensor], **others: Any) -> dict[str, Any]:
    """A loss by a function, and its denominator, which hesspipe asks for."""
    return {"loss_fn": FunctionLoss(function), "denominator": number_of, **others}


def at_zero_residual(loss: Callable[[Any, Any], Tensor], num_outputs: int) -> Question:
    """A linear model at zero; the target of the first sample is met exactly."""
    model = nn.Linear(6, num_outputs, bias=False).double()
    nn.init.zeros_(model.weight)
    targets = normal(23, num_outputs, seed=4)
    targets[0] = 0
    intended = FunctionLoss(mean_of_squared_norms)
    return make_question(model, targets=targets, answer_loss=intended, **user(loss))


def detached_for_some() -> Question:
    """The last samples, when sorted."""
    inputs = normal(23, 6)
    inputs = inputs[inputs[:, 0].argsort()]
    models = [drawn(DetachedForSome(is_detached=value)) for value in (True, False)]
    return make_question(models[0], inputs=inputs, answer=models[1])


def pair(models: list[Any], **others: Any) -> Question:
    """A network, and the same function by elementary operations."""
    return make_question(models[0], answer=models[1], **others)


def tokens() -> Tensor:
    """Three tokens per sample, some of them padding."""
    return torch.randint(5, (23, 3), generator=torch.Generator().manual_seed(6))


DENOMINATORS: dict[str, Asked] = {
    "mean, one batch": lambda: make_question(mlp()),
    "mean": lambda: make_question(mlp(), splits=8),
    "sum": lambda: make_question(mlp(), nn.CrossEntropyLoss(reduction="sum"), 8),
    "class weights": lambda: make_question(mlp(), nn.CrossEntropyLoss(CLASS_WEIGHTS), 8),
    "ignored labels": lambda: make_question(mlp(), splits=8, targets=with_ignored_labels()),
    "label smoothing with class weights": lambda: make_question(
        mlp(), nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=0.2), 8
    ),
    "binary cross-entropy with pos_weight": lambda: make_question(
        mlp(), nn.BCEWithLogitsLoss(pos_weight=CLASS_WEIGHTS), 8, binary(23, 3)
    ),
    "Kullback-Leibler, batchmean": lambda: make_question(
        ending(nn.LogSoftmax(1)), nn.KLDivLoss(reduction="batchmean"), 8,
        normal(23, 3, seed=3).softmax(1),
    ),
    "square loss, three outputs": lambda: make_question(
        mlp(), nn.MSELoss(), 8, normal(23, 3, seed=3)
    ),
    "size_average=False": lambda: make_question(
        mlp(), FunctionLoss(partial(functional.cross_entropy, size_average=False), "sum"), 8,
        answer_loss=nn.CrossEntropyLoss(reduction="sum"),
    ),
    "Gaussian likelihood, two outputs": lambda: make_question(
        mlp(num_outputs=2), splits=8, targets=normal(23, 1, seed=3), **user(gaussian_nll)
    ),
    "mean by a function, no denominator given": lambda: make_question(
        mlp(), FunctionLoss(user_mean), 8
    ),
    "tokens (N, C, T), some ignored": lambda: make_question(
        drawn(Places()), splits=8, targets=ignored_tokens()
    ),
}  # fmt: skip

COUPLED: dict[str, Asked] = {
    "hidden layer less its mean, batches of 2 and 21": lambda: make_question(
        between(lambda h: (h - h.mean(0)).tanh()), splits=[2, 21]
    ),
    "sums over the samples before, batches": lambda: make_question(
        between(lambda h: (h.cumsum(0) / 10).tanh()), splits=8
    ),
    "hidden layer over its deviation, batches": lambda: make_question(
        between(lambda h: ((h - h.mean(0)) / h.std(0)).tanh()), splits=8
    ),
    "hidden layer over its deviation, one batch": lambda: make_question(
        between(lambda h: ((h - h.mean(0)) / h.std(0)).tanh())
    ),
    "InfoNCE, two batches": lambda: make_question(
        mlp(), splits=12, targets=normal(23, 3, seed=3), **user(contrastive)
    ),
    "InfoNCE, one batch": lambda: make_question(
        mlp(), targets=normal(23, 3, seed=3), **user(contrastive)
    ),
    "root of the mean square, batches": lambda: make_question(
        mlp(), splits=8, targets=normal(23, 3, seed=3), **user(rmse)
    ),
    "root of the mean square, one batch": lambda: make_question(
        mlp(), targets=normal(23, 3, seed=3), **user(rmse)
    ),
    "correlation, one batch": lambda: make_question(
        mlp(num_outputs=1), targets=normal(23, 1, seed=3), **user(correlation)
    ),
    "batch norm, training mode, batches": lambda: make_question(
        normalized_mlp(), splits=8, mode=True
    ),
}

BROADCAST: dict[str, Asked] = {
    "outputs (N, 1), targets (N,), one batch": lambda: make_question(
        mlp(num_outputs=1), nn.MSELoss(), 23, normal(23, seed=3), answer_loss=squared_outside
    ),
    "outputs (N, 1), targets (N,), batches": lambda: make_question(
        mlp(num_outputs=1), nn.MSELoss(), 8, normal(23, seed=3), answer_loss=squared_outside
    ),
    "outputs (N,), targets (N, 1), one batch": lambda: make_question(
        ending(nn.Flatten(0), 1), nn.MSELoss(), 23, normal(23, 1, seed=3),
        answer_loss=squared_outside,
    ),
}  # fmt: skip

RANDOM: dict[str, Asked] = {
    "dropout, model in training mode": lambda: make_question(
        layers(nn.Tanh(), nn.Dropout(0.3)), mode=True
    ),
    "dropout by a function": lambda: make_question(between(dropout_function), has_answer=False),
    "layer that adds noise": lambda: make_question(between(with_noise), has_answer=False),
    "randomized ReLU, training mode": lambda: make_question(layers(nn.RReLU()), mode=True),
}

OPERATIONS: dict[str, Asked] = {
    "batch norm, evaluation mode, batches": lambda: make_question(normalized_mlp(), splits=8),
    "layer norm": lambda: make_question(layers(nn.LayerNorm(4), nn.Tanh())),
    "group norm": lambda: make_question(layers(nn.GroupNorm(2, 4), nn.Tanh())),
    "weight norm (wrong in torch)": lambda: pair(weight_norm_networks()),
    "fused attention": lambda: make_question(drawn(Attention())),
    "LSTM": lambda: make_question(drawn(Recurrent())),
    "embedding with padding_idx": lambda: make_question(embedding(), inputs=tokens()),
    "convolution and max pooling": lambda: make_question(convolutional()),
    "activation in place": lambda: make_question(mlp(partial(nn.ReLU, inplace=True))),
    "checkpoint": lambda: pair([drawn(Checkpointed(False)), drawn(Checkpointed(None))]),
    "checkpoint, reentrant": lambda: pair([drawn(Checkpointed(True)), drawn(Checkpointed(None))]),
    "pruned layer": lambda: pair(pruned_networks()),
    "derivative in the inputs": lambda: make_question(
        Slope(), nn.MSELoss(), targets=normal(23, 6, seed=3)
    ),
    "frozen parameter": lambda: make_question(frozen_mlp()),
    "unused parameter": lambda: make_question(unused_mlp()),
    "weight shared by two layers": lambda: make_question(drawn(Tied())),
}

DERIVATIVES: dict[str, Asked] = {
    "custom operation, detached in backward": lambda: pair(
        [between(square_with_constant_slope), between(torch.square)]
    ),
    "detached for some samples": detached_for_some,
    "rounding, straight through": lambda: pair(
        [between(straight_through), between(lambda h: h.round().tanh())]
    ),
    "abs()**2 at a residual of zero": lambda: at_zero_residual(squared_absolute, 1),
    "norm()**2 at a residual of zero": lambda: at_zero_residual(squared_norm, 3),
}

PRECISION: dict[str, Asked] = {
    "float32 inside a float64 model": lambda: pair([between(in_float32), between(torch.tanh)]),
    "float32 inside the loss": lambda: make_question(
        mlp(), FunctionLoss(in_single), answer_loss=nn.CrossEntropyLoss()
    ),
    "class weights of float32, float64 model": lambda: make_question(
        mlp(), nn.CrossEntropyLoss(CLASS_WEIGHTS.float()),
        answer_loss=nn.CrossEntropyLoss(CLASS_WEIGHTS.float().double()),
    ),
}  # fmt: skip

_LOSSES: dict[str, Callable[[], dict[str, Any]]] = {
    "binary cross-entropy of a sigmoid": lambda: {
        "model": ending(nn.Sigmoid()), "loss_fn": nn.BCELoss(), "targets": binary(23, 3),
    },
    "Poisson, log_input=False": lambda: {
        "model": ending(nn.Softplus()), "loss_fn": nn.PoissonNLLLoss(log_input=False),
        "targets": binary(23, 3) + 1,
    },
    "Gaussian with a variance output": lambda: {
        "model": ending(MeanAndVariance(), 2), "targets": normal(23, 1, seed=3),
        **user(variance_outputs_nll),
    },
    "Brier score": lambda: {"model": mlp(), **user(brier)},
    "focal loss": lambda: {"model": mlp(), **user(focal)},
}  # fmt: skip


def _of_loss(make: Callable[[], dict[str, Any]], matrix: str) -> Question:
    settings = make()
    return make_question(settings.pop("model"), matrix=matrix, **settings)


LOSSES: dict[str, Asked] = {
    f"{loss}, {letter}": partial(_of_loss, make, matrix)
    for letter, matrix in (("H", "hessian"), ("G", "ggn"))
    for loss, make in _LOSSES.items()
}
