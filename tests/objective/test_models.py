"""Common models: right where torch's derivatives are right, else refused in one clear line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils import checkpoint as checkpointing
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import hesspipe
from hesspipe.objective.objective import Objective

X, Y = normal(6, 4), labels(6, 3)
TOKENS = torch.tensor([[0, 1, 2], [3, 3, 0], [4, 0, 0], [1, 2, 4], [2, 2, 2], [0, 4, 1]])


def reference(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
    """The Hessian by double backward, on the model's own parameters."""
    parameters = list(model.parameters())

    def slopes(value: Tensor, **kwargs: bool) -> Tensor:
        found = torch.autograd.grad(value, parameters, allow_unused=True, **kwargs)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    gradient = slopes(functional.cross_entropy(model(inputs), targets), create_graph=True)
    return torch.stack([slopes(entry, retain_graph=True) for entry in gradient])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def changed(change: Callable[[nn.Sequential], Any]) -> nn.Sequential:
    model = network()
    change(model)
    return model


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


class Listed(nn.Module):
    """Parameters in a list and a dictionary, a constant in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([normal(4, 5), normal(5, 3)])
        self.others = nn.ParameterDict({"bias": normal(3, seed=1)})
        self.scale = torch.full((5,), 0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = (inputs @ self.weights[0] * self.scale).tanh()
        return hidden @ self.weights[1] + self.others["bias"]


class Aliased(nn.Module):
    """A parameter that is a buffer, too, or shares its memory with one."""

    def __init__(self, is_same: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3).double()
        weight = self.layer.weight if is_same else self.layer.weight.data
        self.register_buffer("alias", weight)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs).tanh() + inputs @ self.alias.T
        return outputs


class Overlapping(nn.Module):
    """Parameters that are views of one vector."""

    def __init__(self) -> None:
        super().__init__()
        numbers = normal(15)
        self.weight, self.scale = nn.Parameter(numbers[:12].view(4, 3)), nn.Parameter(numbers[9:12])

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs @ self.weight).tanh() * self.scale


class Tied(nn.Module):
    """An embedding whose weight is that of the output layer."""

    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Embedding(5, 3, padding_idx=padding_idx)
        self.last = nn.Linear(3, 5, bias=False)
        self.last.weight = self.first.weight
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.first(tokens).sum(1).tanh())
        return outputs


class Recurrent(nn.Module):
    """Several layers in both directions."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = kind(2, 2, batch_first=True, num_layers=2, bidirectional=True).double()
        self.last = nn.Linear(4, 3).double()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.cell(inputs.view(-1, 2, 2))[0][:, -1])
        return outputs


def pruned_globally(model: nn.Sequential) -> None:
    parts = [(model[0], "weight"), (model[2], "weight")]
    prune.global_unstructured(parts, prune.L1Unstructured, amount=0.3)
    model(X)


def old_spectral_norm(model: nn.Sequential) -> None:
    nn.utils.spectral_norm(model[0])
    model.eval()
    model(X)


def embedding(**kwargs: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 2, **kwargs), nn.Flatten(), nn.Linear(6, 3)).double()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pruned": lambda: changed(lambda model: prune.l1_unstructured(model[0], "weight", 0.5)),
    "pruned rows": lambda: changed(lambda m: prune.random_structured(m[2], "weight", 0.4, dim=0)),
    "pruned globally, after a call": lambda: changed(pruned_globally),
    "pruned bias": lambda: changed(lambda model: prune.l1_unstructured(model[0], "bias", 0.5)),
    "spectral norm by a hook": lambda: changed(old_spectral_norm),
    "parametrization": lambda: nn.Sequential(
        parametrize.register_parametrization(nn.Linear(4, 4), "weight", Symmetric()), nn.Tanh(),
        nn.Linear(4, 3),
    ).double(),
    "orthogonal": lambda: changed(
        lambda model: parametrizations.orthogonal(model[0], orthogonal_map="matrix_exp")
    ),
    "hook": lambda: changed(lambda m: m[0].register_forward_hook(lambda _, args, out: 2 * out)),
    "hook before": lambda: changed(
        lambda model: model[2].register_forward_pre_hook(lambda _, args: (args[0] ** 2,))
    ),
    "hook of the model": lambda: changed(
        lambda model: model.register_forward_hook(lambda _, args, out: out.sin())
    ),
    "lists": lambda: Listed().double(),
    "buffer that is a parameter": lambda: Aliased(True),
    "buffer with the memory of a parameter": lambda: Aliased(False),
    "overlapping": Overlapping,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "embedding": embedding,
    "embedding with padding": lambda: embedding(padding_idx=0),
    "embedding with padding from the end": lambda: embedding(padding_idx=-1),
    "tied embedding": Tied,
    "tied embedding with padding": lambda: Tied(padding_idx=0),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*spectral_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", MODELS)
def test_hessian_of_common_models_is_that_of_double_backward(name: str) -> None:
    model = MODELS[name]()
    is_tokens = any(isinstance(module, nn.Embedding) for module in model.modules())
    inputs, targets = (
        (TOKENS, labels(6, 5 if name.startswith("tied") else 3)) if is_tokens else (X, Y)
    )
    expected = reference(model, inputs, targets)
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    identity = torch.eye(len(expected), dtype=torch.float64)
    assert_close(hesspipe.hessian_matrix(objective), expected, factor=200)
    assert_close(hesspipe.HessianOperator(objective) @ identity, expected, factor=200)


def test_row_of_padding_is_constant_for_penalty_and_points_nearby() -> None:
    model = embedding(padding_idx=1)
    objective = Objective(model, nn.CrossEntropyLoss(), (TOKENS, Y), weight_decay=0.5)
    is_padding = torch.zeros(31, dtype=torch.bool)
    is_padding[2:4] = True
    assert torch.equal(objective.is_varied, ~is_padding)
    matrix = hesspipe.hessian_matrix(objective)
    expected = reference(model, TOKENS, Y) + 0.5 * torch.diag((~is_padding).double())
    assert_close(matrix, expected, factor=200)
    assert not matrix[is_padding].any()
    moved = objective._flat.another_point() - objective.theta
    assert torch.equal(moved == 0, is_padding)
    assert model[0].padding_idx == 1  # the caller's


def test_sparse_embedding_has_the_hessian_of_a_dense_one() -> None:
    sparse = Objective(embedding(sparse=True), nn.CrossEntropyLoss(), (TOKENS, Y))
    expected = reference(embedding(), TOKENS, Y)
    assert_close(hesspipe.hessian_matrix(sparse), expected, factor=200)


class Checkpointed(nn.Module):
    """Two layers, computed in one of the ways of checkpointing."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.way = nn.Linear(4, 5), nn.Linear(5, 3), way

    def hidden(self, inputs: Tensor, scale: float = 1.0) -> Tensor:
        return scale * self.first(inputs).tanh()

    def forward(self, inputs: Tensor) -> Any:
        if self.way == "plain":
            return self.last(self.hidden(inputs, 2.0))
        if self.way == "keyword":
            return self.last(checkpoint(self.hidden, inputs, scale=2.0, use_reentrant=False))
        if self.way.startswith("sequential"):
            parts = [self.first, nn.Tanh(), lambda hidden: self.last(2.0 * hidden)]
            return checkpoint_sequential(parts, 2, inputs, use_reentrant=self.way[-1] == "1")
        return self.last(
            checkpoint(self.hidden, inputs, 2.0, use_reentrant=self.way == "reentrant")
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "way", ["reentrant", "not reentrant", "keyword", "sequential 0", "sequential 1"]
)
def test_checkpointed_models_are_those_without_checkpoints(way: str, dtype: torch.dtype) -> None:
    model, before = Checkpointed(way).to(dtype), vars(checkpointing).copy()
    expected = reference(Checkpointed("plain").to(dtype).double(), X, Y)
    objective = Objective(model, nn.CrossEntropyLoss(), (X, Y))
    theta = objective.theta + 0.1
    moved = Checkpointed("plain").double()
    nn.utils.vector_to_parameters(theta, moved.parameters())
    assert_close(hesspipe.hessian_matrix(objective), expected, factor=200)
    assert_close(objective.outputs(theta, X), moved(X).detach())
    assert vars(checkpointing) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_less_precision_are_converted(dtype: torch.dtype) -> None:
    model = network().to(dtype)
    objective = Objective(model, nn.CrossEntropyLoss(), (X, Y))
    assert next(model.parameters()).dtype == dtype
    assert_close(hesspipe.hessian_matrix(objective), reference(model.double(), X, Y), factor=200)


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(network().float(), {nn.Linear})


class Functional(nn.Module):
    """An embedding without a module."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.weight, self.kwargs = nn.Parameter(normal(5, 3)), kwargs

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.weight, **self.kwargs).sum(1)


def holding(weight: Tensor) -> nn.Module:
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(weight)
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "max_norm": (lambda: embedding(max_norm=1.0), TOKENS, r"got 0 with max_norm.*to None or False"),
    "bag with max_norm": (lambda: nn.EmbeddingBag(5, 3, max_norm=1.0), TOKENS, "with max_norm"),
    "frequencies": (lambda: embedding(scale_grad_by_freq=True), TOKENS, "got 0 with scale_grad"),
    "bag": (lambda: nn.EmbeddingBag(5, 3), TOKENS, "got _embedding_bag_backward without a sec"),
    "functional max_norm": (lambda: Functional(max_norm=1.0), TOKENS, "parameters or their views"),
    "functional padding": (lambda: Functional(padding_idx=0), TOKENS, "must be the derivative"),
    "functional sparse": (lambda: Functional(sparse=True), TOKENS, "with sparse=False"),
    "script": (lambda: torch.jit.script(network()), X, "not hold TorchScript, got the model"),
    "trace": (lambda: nn.Sequential(torch.jit.trace(network(), X)), X, "hold TorchScript, got 0"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), X, "0.weight of a lazy module; call the mod"),
    "large tokens": (embedding, TOKENS + 9, "tokens are from 0 to the number of rows of their emb"),
    "meta": (lambda: nn.Linear(4, 3, device="meta"), X, "must have data, got weight on the meta"),
    "quantized": (quantized, X, r"got 0 \(Linear\); pass the model from before quantization"),
    "sparse parameter": (lambda: holding(torch.eye(3).to_sparse()), X, "got weight of layout tor"),
    "nested parameter": (
        lambda: holding(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])), X,
        "got weight of a nested tensor; keep the values",
    ),
    "changing backward hook": (
        lambda: changed(
            lambda m: m[1].register_full_backward_hook(lambda _, slopes, out: (2 * slopes[0],))
        ), X, "must be the derivative",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_models_without_correct_derivatives_are_refused_in_one_line(name: str) -> None:
    build, inputs, message = REFUSED[name]
    model = build()
    targets = labels(6, 5 if name.startswith("tied") else 3)
    with pytest.raises(ValueError, match=message) as found:
        Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    assert "\n" not in str(found.value)
    assert type(found.value).__module__.startswith(("hesspipe", "builtins"))
