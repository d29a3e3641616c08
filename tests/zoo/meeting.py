"""Networks and losses in which two features meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from zoo.case import Case, Row, classifier, integers, numbers, own_loss
from zoo.language import DECODER, ENCODER, IGNORED, LABELS, TEXT, TOKENS, build, own

SINGLE, LANGUAGE = torch.float32, ["transformers"]
X, Y = numbers(6, 4), integers(3, 6)


def _chain(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for layer in layers:
        for module in layer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return nn.Sequential(*layers)


def _classes() -> nn.Module:
    return _chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Formula(TorchFunctionMode):
    """Layer normalization by its formula: torch's has a wrong third derivative."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.layer_norm:
            weight, bias, eps = (kwargs[name] for name in ("weight", "bias", "eps"))
            centered = args[0] - args[0].mean(-1, keepdim=True)
            return weight * centered / (centered.square().mean(-1, True) + eps).sqrt() + bias
        return func(*args, **(kwargs or {}))


def _penalty(critic: nn.Module, points: Tensor) -> Tensor:
    points = points.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return (slopes.norm(dim=1) - 1).square().mean()


def _critic() -> Case:
    model = _chain(nn.Linear(4, 5), nn.LayerNorm(5), nn.Softplus(), nn.Linear(5, 1))
    case = own_loss(model, X, _penalty)
    make = case.loss

    def by_formula(network: nn.Module) -> Tensor:
        with Formula():
            return make(network)

    return replace(case, loss=by_formula)


def _laplacian(model: nn.Module, points: Tensor) -> Tensor:
    def curvature(point: Tensor) -> Tensor:
        return hessian(lambda x: model(x).sum())(point).diagonal().sum()

    return (torch.vmap(curvature)(points) - 1).square().mean()


def _sharpness_aware(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    parameters = dict(model.named_parameters())

    def loss(given: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(functional_call(model, given, (batch[0],)), batch[1])

    slopes = torch.autograd.grad(loss(parameters), list(parameters.values()), create_graph=True)
    length = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
    pairs = zip(parameters.items(), slopes, strict=True)
    return loss({name: value + 0.1 * slope / length for (name, value), slope in pairs})


def _policy(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    likelihood = model(batch["x"]).log_softmax(1).gather(1, batch["actions"][:, None])[:, 0]
    ratio = (likelihood - batch["before"]).exp()
    return -torch.min(ratio * batch["gain"], ratio.clamp(0.8, 1.2) * batch["gain"]).mean()


class Labeler(nn.Module):
    """A conditional random field over the outputs of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = _classes()
        self.changes = nn.Parameter(0.1 * numbers(3, 3, seed=5))

    def loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood of sequences of labels (N, T)."""
        scores = self.scores(rows)
        total = scores[:, 0]
        for step in scores.unbind(1)[1:]:
            total = torch.logsumexp(total[:, :, None] + self.changes, 1) + step
        own = scores.gather(2, labels[..., None]).sum((1, 2))
        own = own + self.changes[labels[:, :-1], labels[:, 1:]].sum(1)
        return (torch.logsumexp(total, 1) - own).mean()


class Operator(nn.Module):
    """A Fourier neural operator with weights as pairs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(0.5 * numbers(2, 2, 3, 2))
        self.lift, self.read = nn.Linear(1, 2), nn.Linear(2, 1)

    def forward(self, values: Tensor) -> Tensor:
        lifted = self.lift(values).transpose(1, 2)
        waves = torch.fft.rfft(lifted)
        weight = torch.view_as_complex(self.weight)
        low = torch.einsum("nik,iok->nok", waves[..., :3], weight)
        found = torch.fft.irfft(functional.pad(low, (0, waves.shape[-1] - 3)), lifted.shape[-1])
        return self.read(torch.tanh(found + lifted).transpose(1, 2))


class Nested(nn.Module):
    """A checkpoint inside another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def block(self, rows: Tensor) -> Tensor:
        """Evaluate a block with a checkpoint of its own."""
        inner = checkpoint(lambda x: torch.tanh(self.inner(x)), rows, use_reentrant=False)
        return rows + inner

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(checkpoint(self.block, self.first(rows), use_reentrant=False))


def _mixture(outputs: Tensor, targets: Tensor) -> Tensor:
    kinds = torch.distributions.Categorical(logits=outputs[:, :2])
    parts = torch.distributions.Normal(outputs[:, 2:4], functional.softplus(outputs[:, 4:]) + 0.1)
    likelihood = torch.distributions.MixtureSameFamily(kinds, parts).log_prob(targets)
    return -likelihood.mean()


def _largest(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none").topk(3).values.mean()


def _householder() -> Case:
    model = _chain(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    parametrizations.orthogonal(model[0], orthogonal_map="householder")
    return classifier(model, X, Y)


def _sparse() -> Case:
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(model.weight.detach().to_sparse())
    return classifier(model, X, Y)


def _transformers(
    name: str, config: str, batch: dict[str, Any], **sizes: Any
) -> Callable[[], Case]:
    dtype = SINGLE if sizes.pop("is_single", False) else torch.float64
    return lambda: own(build(name, config, **sizes), batch, dtype)


SPANS = {"start_positions": integers(7, 3), "end_positions": integers(7, 3, seed=4)}
QUESTION = {"labels": numbers(3, 3).sigmoid(), "pixel_values": numbers(3, 3, 16, 16)}
PLAIN = {"input_ids": TOKENS, "labels": IGNORED}
EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": True, "is_single": True}
CONVOLUTIONS = {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 2}
POLICY = {
    "x": X, "actions": Y, "gain": numbers(6, seed=3), "before": numbers(6, seed=4).abs() - 2,
}  # fmt: skip
ROWS = [
    Row("gradient penalty, layer normalization by its formula", _critic),
    Row(
        "Laplacian by torch.func, a differential equation",
        lambda: own_loss(_chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), X, _laplacian),
    ),
    Row("sharpness-aware loss", lambda: own_loss(_classes(), (X, Y), _sharpness_aware)),
    Row("clipped policy (PPO)", lambda: own_loss(_classes(), POLICY, _policy)),
    Row(
        "conditional random field",
        lambda: own_loss(
            Labeler(), (numbers(2, 5, 4), integers(3, 2, 5)), lambda net, b: net.loss(*b)
        ),
    ),
    Row(
        "Fourier neural operator, weights as pairs",
        lambda: classifier(
            Operator(), numbers(3, 8, 1), numbers(3, 8, 1, seed=2), loss_fn=functional.mse_loss
        ),
    ),
    Row("checkpoints inside checkpoints", lambda: classifier(Nested(), X, Y)),
    Row(
        "mixture of densities",
        lambda: classifier(
            _chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6)),
            X,
            numbers(6, seed=3),
            loss_fn=_mixture,
        ),
    ),
    Row("mean of the largest losses", lambda: classifier(_classes(), X, Y, loss_fn=_largest)),
    Row("orthogonal weights, Householder", _householder, refusal="or leave them out by param"),
    Row("sparse parameter", _sparse, refusal="keep the values as the parameter"),
    Row(
        "ELECTRA for questions, its own loss",
        _transformers(
            "ElectraForQuestionAnswering",
            "ElectraConfig",
            TEXT | SPANS,
            embedding_size=8,
            **ENCODER,
        ),
        LANGUAGE,
        1,
    ),
    Row(
        "ALBERT for multiple choice, shared layers",
        _transformers(
            "AlbertForMultipleChoice",
            "AlbertConfig",
            {"input_ids": integers(38, 2, 3, 5) + 1, "labels": integers(3, 2)},
            embedding_size=8,
            **ENCODER,
        ),
        LANGUAGE,
        1,
    ),
    Row(
        "ViLT, images and words, its own loss",
        _transformers(
            "ViltForQuestionAnswering",
            "ViltConfig",
            TEXT | QUESTION,
            image_size=16,
            patch_size=8,
            num_labels=3,
            **(ENCODER | {"max_position_embeddings": 40}),
        ),
        LANGUAGE,
        1,
    ),
    Row(
        "ConvNeXt v2",
        _transformers(
            "ConvNextV2ForImageClassification",
            "ConvNextV2Config",
            {"pixel_values": numbers(3, 3, 8, 8), "labels": LABELS},
            num_labels=3,
            **CONVOLUTIONS,
        ),
        LANGUAGE,
        1,
    ),
    Row(
        "OPT in float32, projected tied embeddings",
        _transformers(
            "OPTForCausalLM",
            "OPTConfig",
            PLAIN,
            hidden_size=16,
            num_hidden_layers=2,
            ffn_dim=24,
            num_attention_heads=2,
            vocab_size=40,
            max_position_embeddings=16,
            word_embed_proj_dim=8,
            is_single=True,
        ),
        LANGUAGE,
        1,
    ),
    Row(
        "OLMoE in float32, a loss of the router",
        _transformers(
            "OlmoeForCausalLM", "OlmoeConfig", PLAIN, num_experts=4, **EXPERTS, **DECODER
        ),
        LANGUAGE,
        1,
    ),
    Row(
        "gpt-oss in float32, attention sinks and experts",
        _transformers(
            "GptOssForCausalLM",
            "GptOssConfig",
            PLAIN,
            num_local_experts=4,
            head_dim=8,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
            **EXPERTS,
            **DECODER,
        ),
        LANGUAGE,
        1,
    ),
    Row(
        "Mamba 2 in float32",
        _transformers(
            "Mamba2ForCausalLM",
            "Mamba2Config",
            PLAIN,
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=1,
            state_size=4,
            num_heads=4,
            head_dim=8,
            n_groups=1,
            chunk_size=4,
            is_single=True,
        ),
        LANGUAGE,
        1,
    ),
]
