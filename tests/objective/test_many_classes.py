"""Cross-entropy of many classes: the values of torch, in a fourth of its memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import EPS, assert_close, labels, normal
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import hesspipe
from hesspipe import Objective
from hesspipe.objective import many_classes

NUM_SAMPLES, NUM_CLASSES = 7, 6
LABELS = labels(NUM_SAMPLES, NUM_CLASSES)
WEIGHT = normal(NUM_CLASSES, seed=4).abs()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let six classes be many, and two samples a part."""
    monkeypatch.setattr(many_classes, "_MANY", NUM_CLASSES)
    monkeypatch.setattr(many_classes, "_NUM_NUMBERS", 2 * NUM_CLASSES)


def third(loss: Tensor, logits: Tensor) -> list[Tensor]:
    """Return a loss and its first three derivatives, along random directions."""
    found = [loss]
    for seed in range(3):
        weights = normal(found[-1].numel(), seed=seed).view(found[-1].shape)
        found += torch.autograd.grad(found[-1], logits, weights, create_graph=True)
    return found


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("ignored", [[], [1, 4], [0, 1, 2, 3, 5, 6]])
@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.usefixtures("many")
def test_cross_entropy_has_the_derivatives_of_torch(
    reduction: str, weight: Tensor | None, ignored: list[int], scale: float
) -> None:
    target = LABELS.clone()
    target[ignored] = -100
    point = (scale * normal(NUM_SAMPLES, NUM_CLASSES)).requires_grad_()
    options: dict[str, Any] = {"weight": weight, "reduction": reduction}
    found = many_classes.cross_entropy(point, target, **options)
    assert "CrossEntropyOfManyClasses" in _names(found)
    expected = functional.cross_entropy(point, target, **options)
    for one, other in zip(third(found, point), third(expected, point), strict=True):
        bound = (
            100 * EPS * max(1.0, float(other.detach().norm()))
        )  # probabilities are rounded by eps
        assert float((one - other).detach().abs().max()) <= bound


def _names(value: Tensor) -> str:
    names, nodes = "", [value.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None:
            names += node.name()
            nodes += [parent for parent, _ in node.next_functions]
    return names


@pytest.mark.usefixtures("many")
def test_second_derivative_is_that_of_differences() -> None:
    point = normal(NUM_SAMPLES, NUM_CLASSES).requires_grad_()
    loss = lambda logits: many_classes.cross_entropy(logits, LABELS)  # noqa: E731
    assert torch.autograd.gradcheck(loss, point)
    assert torch.autograd.gradgradcheck(loss, point)


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"target": functional.one_hot(LABELS, NUM_CLASSES).double()},
        {"input": normal(NUM_SAMPLES, NUM_CLASSES, 1), "target": LABELS.unsqueeze(1)},
        {"input": normal(NUM_CLASSES), "target": LABELS[0]},
        {"size_average": False},
    ],
)
@pytest.mark.filterwarnings("ignore:size_average")
@pytest.mark.usefixtures("many")
def test_other_cross_entropies_are_those_of_torch(options: dict[str, Any]) -> None:
    arguments = {"input": normal(NUM_SAMPLES, NUM_CLASSES), "target": LABELS, **options}
    arguments["input"] = arguments["input"].clone().requires_grad_()
    found = many_classes.cross_entropy(**arguments)
    assert "ManyClasses" not in _names(found)
    assert torch.equal(found, functional.cross_entropy(**arguments))


@pytest.mark.parametrize(
    "options",
    [
        {"target": torch.full((NUM_SAMPLES,), NUM_CLASSES)},
        {"target": torch.full((NUM_SAMPLES,), -1)},
        {"reduction": "average"},
        {"weight": torch.ones(NUM_CLASSES + 1, dtype=torch.float64)},
        {"weight": torch.ones(NUM_CLASSES, 1, dtype=torch.float64)},
        {"target": LABELS[:3]},
    ],
)
@pytest.mark.usefixtures("many")
def test_what_torch_refuses_is_refused_in_its_words(options: dict[str, Any]) -> None:
    arguments = {"input": normal(NUM_SAMPLES, NUM_CLASSES), "target": LABELS, **options}
    with pytest.raises((IndexError, RuntimeError, ValueError)) as expected:
        functional.cross_entropy(**arguments)
    with pytest.raises(expected.type, match=re.escape(str(expected.value))):
        many_classes.cross_entropy(**arguments)


class Arrays(TorchDispatchMode):
    """Counts the arrays of at least a size that operations make, while they exist."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes, self.most = num_bytes, 0
        self._found: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor) and part.untyped_storage().nbytes() >= self.num_bytes:
                storage = part.untyped_storage()
                self._found[storage._cdata] = StorageWeakRef(storage)
        self.most = max(self.most, self.count())
        return result

    def count(self) -> int:
        """Return how many of them exist now."""
        self._found = {key: ref for key, ref in self._found.items() if not ref.expired()}
        return len(self._found)


OPERATORS = {
    "hessian": hesspipe.HessianOperator,
    "ggn": hesspipe.GGNOperator,
    "residual": hesspipe.ResidualOperator,
}


class Words(nn.Module):
    """Words from words, with tied embeddings."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.words, self.hidden = nn.Embedding(num_words, 3), nn.Linear(3, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.linear(self.hidden(self.words(tokens)).tanh(), self.words.weight)


def mean_over_words(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("model", ["tied", "plain"])
def test_product_makes_few_arrays_of_logits(
    kind: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is the double backward of torch's own cross-entropy.

    While a mode sees the operations, torch adds slopes to a third array, not in place.
    """
    num_words = many_classes._MANY
    monkeypatch.setattr(many_classes, "_NUM_NUMBERS", 2 * num_words)
    torch.manual_seed(0)
    tokens, targets = torch.randint(num_words, (2, 4, 5))
    network: nn.Module
    if model == "tied":
        network, loss = Words(num_words), mean_over_words
    else:
        network = nn.Sequential(nn.Embedding(40, 3), nn.Tanh(), nn.Linear(3, num_words))
        tokens, loss = tokens % 40, mean_over_words
    network = network.double()
    objective = Objective(network, loss, (tokens, targets))
    vector = normal(objective.num_parameters)
    with Arrays(tokens.numel() * num_words * 8) as arrays:
        operator = OPERATORS[kind](objective)
        found = operator @ vector
        kept, arrays.most = arrays.count(), 0
        assert torch.equal(operator @ vector, found)
    assert arrays.most <= kept + 3
    assert kept <= (3 if kind == "ggn" else 2)
    assert_close(found, _reference(kind, network, tokens, targets, vector))


def _memory(name: str) -> int:
    """Read a number of bytes of the process, by its name in proc_pid_status(5)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def test_product_takes_the_memory_of_two_arrays_of_logits() -> None:
    num_words, num_samples = 30_000, 300  # larger than what malloc keeps for later
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, num_words))
    data = torch.randn(num_samples, 2), torch.randint(num_words, (num_samples,))
    objective = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float32)
    vector = torch.randn(objective.num_parameters)
    for kind, make in OPERATORS.items():
        operator = make(objective)
        operator @ vector
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before = _memory("VmRSS")
        except OSError:
            pytest.skip("this system does not reset the peak of a process's memory")
        operator @ vector
        arrays = (_memory("VmHWM") - before) / (4 * num_samples * num_words)
        assert arrays <= 2.3, kind


def _reference(
    kind: str, network: nn.Module, tokens: Tensor, targets: Tensor, vector: Tensor
) -> Tensor:
    """Multiply with H, or R from the slopes held constant, in plain torch; G is the difference."""
    parameters = list(network.parameters())
    parts = [
        part.view_as(one)
        for part, one in zip(
            vector.split([one.numel() for one in parameters]), parameters, strict=True
        )
    ]

    def product(scalar: Tensor) -> Tensor:
        slopes = torch.autograd.grad(scalar, parameters, create_graph=True)
        along = sum((one * other).sum() for one, other in zip(slopes, parts, strict=True))
        assert isinstance(along, Tensor)
        return torch.cat(
            [
                one.reshape(-1)
                for one in torch.autograd.grad(along, parameters, materialize_grads=True)
            ]
        )

    logits = network(tokens)
    loss = mean_over_words(logits, targets)
    hessian = product(loss)
    if kind == "hessian":
        return hessian
    logits = network(tokens)
    leaf = logits.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(mean_over_words(leaf, targets), leaf)
    residual = product((logits * slopes).sum())
    return residual if kind == "residual" else hessian - residual
