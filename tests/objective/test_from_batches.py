"""Losses `loss(model, batch)` over batches of any type, against double backward."""

from __future__ import annotations

import threading
from collections import UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import hesspipe
from hesspipe.objective.objective import Objective

X, Y = normal(6, 4).float(), labels(6, 3)
Pair = namedtuple("Pair", ["x", "y"])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


def double_backward(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Tensor:
    """The Hessian of a loss in the model's own parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def slopes(value: Tensor, **kwargs: bool) -> Tensor:
        found = torch.autograd.grad(value, parameters, allow_unused=True, **kwargs)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    gradient = slopes(loss(model), create_graph=True)
    return torch.stack([slopes(entry, retain_graph=True) for entry in gradient])


def expected(model: nn.Module | None = None) -> Tensor:
    model = (model or network()).double()
    return double_backward(model, lambda m: functional.cross_entropy(m(X.double()), Y))


@dataclass(frozen=True)
class Record:
    """A batch with names."""

    x: Tensor
    y: Tensor
    name: str = "train"


class Slotted:
    """A batch without a dictionary of attributes."""

    __slots__ = ("x", "y")

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


class Graph:
    """Like the data of graphs: works in place, and iterates over its entries."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.store = {"x": x, "y": y}
        self.lock = threading.Lock()
        self.same = x

    def __getattr__(self, name: str) -> Any:
        if name == "store":
            raise AttributeError(name)
        return self.store[name]

    def __iter__(self) -> Any:
        return iter(self.store.items())

    def to(self, *args: Any) -> Graph:
        self.store = {key: value.to(*args) for key, value in self.store.items()}
        return self


def local_batch(x: Tensor, y: Tensor) -> Any:
    class Local:
        def __init__(self) -> None:
            self.parts = [x, {"y": y, "function": lambda: None}]
            self.x, self.y = x, y

    return Local()


def entries(batch: Any) -> tuple[Tensor, Tensor]:
    """Take a batch apart, changing it where it can be changed."""
    if isinstance(batch, (dict, UserDict)):
        return torch.as_tensor(batch.pop("x")), batch.pop("y")
    return (batch[0], batch[1]) if isinstance(batch, list) else (batch.x, batch.y)


BATCHES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dict": lambda x, y: {"x": x, "y": y},
    "arrays": lambda x, y: {"x": x.numpy(), "y": y},
    "list": lambda x, y: [x, y],
    "mapping": lambda x, y: UserDict(x=x, y=y),
    "named tuple": Pair,
    "dataclass": Record,
    "slots": Slotted,
    "graph": Graph,
    "local": local_batch,
}


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = entries(batch)
    return functional.cross_entropy(model(inputs), targets)


@pytest.mark.parametrize("kind", BATCHES)
def test_from_batches_equals_one_batch_of_all_data(kind: str) -> None:
    make = BATCHES[kind]
    batches = [make(X[part], Y[part]) for part in (slice(0, 4), slice(4, 6))]
    objective = Objective.from_batches(
        network(), cross_entropy, batches, num_samples=lambda batch: len(entries(batch)[1])
    )
    assert objective.num_data == 6
    assert_close(hesspipe.hessian_matrix(objective), expected())


@pytest.mark.parametrize("kind", BATCHES)
def test_from_batches_copies_batches(kind: str) -> None:
    x, y = X.clone(), Y.clone()
    objective = Objective.from_batches(network(), cross_entropy, [BATCHES[kind](x, y)])
    x.zero_()
    y.zero_()
    assert_close(hesspipe.hessian_matrix(objective), expected())


@pytest.mark.parametrize("kind", BATCHES)
def test_from_batches_leaves_batches_unchanged(kind: str) -> None:
    batch = BATCHES[kind](X, Y)
    Objective.from_batches(network(), cross_entropy, [batch])
    x, y = entries(batch)
    assert x.dtype == torch.float32
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


WEIGHTS: dict[str, dict[str, Any]] = {
    "samples": {"num_samples": lambda batch: len(batch["y"])},
    "key": {"num_samples": "n"},
    "valid labels": {"denominator": lambda batch: (batch["y"] >= 0).sum()},
    "sum": {"reduction": "sum"},
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_from_batches_weights_batches(kind: str) -> None:
    targets = Y.clone()
    if kind == "valid labels":
        targets[[0, 4]] = -1
    reduction = "sum" if kind == "sum" else "mean"

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return functional.cross_entropy(
            model(batch["x"]), batch["y"], ignore_index=-1, reduction=reduction
        )

    whole = {"x": X, "y": targets}
    parts = [
        {"x": X[part], "y": targets[part], "n": len(targets[part])}
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    one, many = (
        Objective.from_batches(network(), loss, batches, **keywords)
        for batches, keywords in (([whole], {"reduction": reduction}), (parts, WEIGHTS[kind]))
    )
    assert many.num_data == (6 if "num_samples" in WEIGHTS[kind] else 3)
    assert_close(hesspipe.hessian_matrix(many), hesspipe.hessian_matrix(one))


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_from_batches_with_outputs_has_all_matrices(matrix: str) -> None:
    batches = [{"x": X[:4], "y": Y[:4]}, {"x": X[4:], "y": Y[4:]}]
    objective = Objective.from_batches(
        network(),
        lambda outputs, batch: functional.cross_entropy(outputs["logits"][0], batch.pop("y")),
        batches,
        outputs=lambda model, batch: {"logits": [model(batch.pop("x"))]},
        num_samples=lambda batch: len(batch["y"]),
    )
    reference = Objective(network(), nn.CrossEntropyLoss(), (X, Y))
    one, other = (hesspipe.spectrum(each, matrix=matrix) for each in (objective, reference))
    assert_close(one.eigenvalues, other.eigenvalues)
    pairs = hesspipe.eigenpairs(objective, matrix=matrix, num_largest=2)
    assert float((pairs.eigenvalues - other.eigenvalues[-2:]).abs().max()) < 1e-8


class Encoder(nn.Module):
    """A model with methods, a setting and a frozen part, that computes its own loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = {"scale": 0.5}
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 3)
        self.body.bias.requires_grad_(False)

    def encode(self, x: Tensor) -> Tensor:
        return self.body(x).tanh() * self.config["scale"]

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": functional.cross_entropy(self.head(self.encode(x)), y)}


def contrastive(model: Any, batch: dict[str, Tensor]) -> Tensor:
    codes = functional.normalize(model.encode(batch["x"]), dim=1)
    return functional.cross_entropy(codes @ codes.mT, torch.arange(len(codes)) // 2)


def penalized(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Differentiates in the inputs, and uses the parameters themselves."""
    x = batch["x"].requires_grad_()
    (slope,) = torch.autograd.grad(model.encode(x).square().sum(), x, create_graph=True)
    decay = sum(p.pow(4).sum() for p in model.parameters())
    return slope.square().sum() + decay + model(**batch)["loss"]


def adapted(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Differentiates in the parameters, as in meta-learning."""
    varied = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inner = model(batch["x"][:3], batch["y"][:3])["loss"]
    slopes = torch.autograd.grad(inner, list(varied.values()), create_graph=True)
    fast = {n: p - 0.5 * s for (n, p), s in zip(varied.items(), slopes, strict=True)}
    query = batch["x"][3:], batch["y"][3:]
    found: Tensor = torch.func.functional_call(model, fast, query)["loss"]
    return found


@pytest.mark.parametrize(
    "loss", [lambda model, batch: model(**batch)["loss"], contrastive, penalized, adapted]
)
def test_from_batches_hands_over_a_module(loss: Callable[..., Tensor]) -> None:
    batch = {"x": X, "y": Y}
    objective = Objective.from_batches(Encoder(), loss, [batch])
    double = {"x": X.double(), "y": Y}
    found = hesspipe.hessian_matrix(objective)[objective.is_varied][:, objective.is_varied]
    assert_close(found, double_backward(Encoder().double(), lambda m: loss(m, dict(double))))


def test_from_batches_accepts_a_method_of_the_model() -> None:
    class Stepped(Encoder):
        def training_step(self, batch: dict[str, Tensor]) -> Tensor:
            return self(**batch)["loss"]

    model = Stepped()
    one = Objective.from_batches(
        model, lambda _, batch: model.training_step(batch), [{"x": X, "y": Y}]
    )
    other = Objective.from_batches(model, lambda m, batch: m(**batch)["loss"], [{"x": X, "y": Y}])
    assert_close(hesspipe.hessian_matrix(one), hesspipe.hessian_matrix(other))


def test_from_batches_reads_a_loader_once() -> None:
    class Samples(Dataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"x": X[index], "y": Y[index]}

    loader = DataLoader(Samples(), 4, shuffle=True, generator=torch.Generator())
    objective = Objective.from_batches(
        network(), cross_entropy, loader, num_samples=lambda batch: len(batch["y"])
    )
    assert_close(hesspipe.hessian_matrix(objective), expected())
    with pytest.raises(ValueError, match="holds samples; pass DataLoader"):
        Objective.from_batches(network(), cross_entropy, Samples())


MODEL = network()
WEIGHTS_OF_MODEL = list(MODEL.parameters())
WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "other uses": (
        lambda model, batch, weights=WEIGHTS_OF_MODEL: (
            cross_entropy(model, batch) + weights[0].square().sum()
        ),
        "use parameters through the model only, got 0.weight",
    ),
    "detached": (
        lambda model, batch: (
            cross_entropy(model, dict(batch)) + cross_entropy(model, batch).detach() ** 2
        ),
        "the gradient must be the derivative",
    ),
    "random": (
        lambda model, batch: cross_entropy(model, batch) * torch.rand(()),
        "deterministic.*rand draws random numbers",
    ),
    "training mode": (
        lambda model, batch: cross_entropy(model.train(), batch) * model[-1].training,
        "deterministic.*dropout",
    ),
    "backward": (
        lambda model, batch: cross_entropy(model, batch).backward(),
        r"loss.backward\(\); split the training step",
    ),
    "no scalar": (
        lambda model, batch: model(batch["x"]),
        r"scalar tensor, got shape \(6, 3\)",
    ),
    "a dictionary": (
        lambda model, batch: {"loss": cross_entropy(model, batch)},
        "scalar tensor, got dict; return the loss only",
    ),
    "lower precision": (
        lambda model, batch: functional.cross_entropy(model(batch["x"]).float(), batch["y"]),
        "compute in torch.float64",
    ),
    "a bug": (lambda model, batch: batch["z"], "KeyError: 'z' .batch 0: dict with"),
    "one argument": (lambda batch: batch, r"takes 1 positional.*called as loss\(model, batch\)"),
    "a constant": (lambda model, batch: batch["x"].sum(), "must depend on the parameters"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_from_batches_refuses_what_is_wrong(kind: str) -> None:
    loss, message = WRONG[kind]
    model = nn.Sequential(MODEL, nn.Dropout(0.5)).eval() if kind == "training mode" else MODEL
    with pytest.raises((ValueError, hesspipe.HesspipeError), match=message):
        Objective.from_batches(model, loss, [{"x": X, "y": Y}])


def test_from_batches_refuses_the_model_in_a_loss_of_outputs() -> None:
    model = network()
    with pytest.raises(ValueError, match="through the model only"):
        Objective.from_batches(
            model,
            lambda outputs, batch: (outputs - model(batch["x"]).tanh()).square().sum(),
            [{"x": X}],
            outputs=lambda m, batch: m(batch["x"]),
        )


def test_from_batches_refuses_the_parameters_in_a_batch() -> None:
    model = network()

    def loss(m: nn.Module, batch: Any) -> Tensor:
        return m(batch["x"]).square().sum() + batch["weights"][0].square().sum()

    with pytest.raises(ValueError, match="through the model only"):
        Objective.from_batches(model, loss, [{"x": X, "weights": list(model.parameters())}])


def test_from_batches_does_not_step() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    cross_entropy(model, {"x": X, "y": Y}).backward()
    before = {name: p.clone() for name, p in model.named_parameters()}

    def step(m: nn.Module, batch: Any) -> Tensor:
        loss = cross_entropy(m, batch)
        optimizer.step()
        return loss

    with pytest.raises(ValueError, match=r"got a call of optimizer.step\(\)"):
        Objective.from_batches(model, step, [{"x": X, "y": Y}])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "one dict": ({"x": X, "y": Y}, {}, r"got dict; write a single batch as the list \[batch\]"),
    "one tuple": ((X, Y), {}, r"got tuple; write a single batch"),
    "one dataclass": (Record(X, Y), {}, "got Record; write"),
    "one graph": (Graph(X, Y), {}, "got Graph; write"),
    "none": ([], {}, "at least one batch"),
    "no weights": ([{"x": X, "y": Y}] * 2, {}, "neither num_samples nor denominator; pass"),
    "no such key": ([{"x": X}], {"num_samples": "n"}, "got 'n', which dict does not have"),
    "no number": ([{"x": X, "y": Y}], {"num_samples": "x"}, "num_samples must be a number"),
    "a fraction": ([{"x": X, "y": Y}], {"num_samples": lambda _: 0.5}, "count, got 0.5"),
    "negative": ([{"x": X, "y": Y}] * 2, {"denominator": lambda _: -1}, "positive, got -1"),
    "both": ([{"x": X}], {"denominator": "n", "reduction": "sum"}, "denominator must be None"),
    "other reduction": ([{"x": X}], {"reduction": "none"}, "must be 'mean' or 'sum'"),
    "a literal": ([{"x": X}], {"denominator": 1}, "reduction='sum'"),
    "no function": ([{"x": X}], {"outputs": "logits"}, r"outputs must be a function of \(model"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_from_batches_refuses_arguments(kind: str) -> None:
    batches, keywords, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        Objective.from_batches(network(), cross_entropy, batches, **keywords)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("layout", ["coo", "csr", "nested"])
def test_from_batches_takes_tensors_that_are_not_dense(layout: str) -> None:
    matrix = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    sparse = {
        "coo": matrix.to_sparse(),
        "csr": matrix.to_sparse_csr(),
        "nested": torch.nested.nested_tensor(list(matrix), layout=torch.jagged),
    }[layout]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        given = batch["matrix"]
        rows = given.to_padded_tensor(0.0) if given.is_nested else given
        return functional.cross_entropy(rows @ model(batch["x"]), batch["y"])

    objective = Objective.from_batches(network(), loss, [{"x": X, "y": Y, "matrix": sparse}])
    reference = double_backward(
        network().double(),
        lambda m: functional.cross_entropy(matrix.double() @ m(X.double()), Y),
    )
    assert_close(hesspipe.hessian_matrix(objective), reference)


@pytest.mark.parametrize("entry", ["pairs", "batches"])
def test_ggn_is_refused_where_the_loss_is_an_output(entry: str) -> None:
    """It would be zero."""
    if entry == "batches":
        objective = Objective.from_batches(
            Encoder(),
            lambda outputs, batch: outputs["loss"],
            [{"x": X, "y": Y}],
            outputs=lambda model, batch: {**model(**batch), "codes": model.encode(batch["x"])},
        )
    else:
        inputs = {"x": X, "y": Y}
        objective = Objective(Encoder(), lambda outputs, _: outputs["loss"], (inputs, None))
    with pytest.raises(ValueError, match="got the loss itself as an output"):
        hesspipe.ggn_matrix(objective)
    plain = Objective.from_batches(Encoder(), lambda m, b: m(**b)["loss"], [{"x": X, "y": Y}])
    assert_close(hesspipe.hessian_matrix(objective), hesspipe.hessian_matrix(plain))


def test_from_batches_says_how_to_get_the_ggn() -> None:
    objective = Objective.from_batches(network(), cross_entropy, [{"x": X, "y": Y}])
    with pytest.raises(ValueError, match="pass outputs=lambda model, batch"):
        hesspipe.ggn_matrix(objective)


def test_copies_of_from_batches_keep_arrays_of_numbers() -> None:
    batch = {"x": X.numpy(), "y": np.asarray(Y)}

    def loss(model: nn.Module, batch: Any) -> Tensor:
        assert batch["x"].dtype == np.float64
        return functional.cross_entropy(
            model(torch.from_numpy(batch["x"])), torch.from_numpy(batch["y"])
        )

    objective = Objective.from_batches(network(), loss, [batch])
    assert_close(hesspipe.hessian_matrix(objective), expected())
