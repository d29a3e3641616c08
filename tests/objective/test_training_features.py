"""Checkpoints, compiled parts, derivatives in the inputs, and models that are tied to a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import hesspipe
from hesspipe.objective.objective import Objective

N = 6
X, Y = normal(N, 4), labels(N, 3)


def double_backward(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Tensor:
    """The Hessian of a loss in the model's own parameters."""
    parameters = list(model.parameters())

    def slopes(value: Tensor, **kwargs: bool) -> Tensor:
        found = torch.autograd.grad(value, parameters, allow_unused=True, **kwargs)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    gradient = slopes(loss(model), create_graph=True)
    return torch.stack([slopes(entry, retain_graph=True) for entry in gradient])


class Plain(nn.Module):
    """Two layers, which subclasses evaluate in other ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 3).double(), nn.Linear(3, 3).double()
        self.matrix = nn.Buffer(torch.rand(N, N).double().softmax(1))
        self.edges = nn.Buffer(torch.randint(0, N, (2, 9)))
        self.places = nn.Buffer(torch.randn(N, 3).double())

    def hidden(self, x: Tensor) -> Tensor:
        return self.first(x).tanh()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.hidden(x))
        return found


class Checkpointed(Plain):
    """With a checkpoint for each layer."""

    settings: dict[str, Any]

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda t: self.hidden(t), x, **self.settings)
        found: Tensor = checkpoint(self.last, hidden, **self.settings)
        return found


class InSequence(Plain):
    """With the checkpoints of torch's own helper."""

    settings: dict[str, Any]

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.hidden, self.last]
        found: Tensor = checkpoint_sequential(parts, 2, x, **self.settings)
        return found


def checkpointed(kind: type[Any], **settings: Any) -> nn.Module:
    model = kind()
    model.settings = settings
    return model


def wrapped() -> nn.Module:
    model = Plain()
    model.first = checkpoint_wrapper(model.first)
    return model


class CompiledMethod(Plain):
    """Decorated where it is defined."""

    hidden = torch.compile(Plain.hidden, backend="aot_eager")


def compiled_part() -> nn.Module:
    model = Plain()
    model.first = torch.compile(model.first, backend="aot_eager")
    return model


def compiled_in_place() -> nn.Module:
    model = Plain()
    model.last.compile(backend="aot_eager")
    return model


SAME: dict[str, Callable[[], nn.Module]] = {
    "reentrant": lambda: checkpointed(Checkpointed, use_reentrant=True),
    "not reentrant": lambda: checkpointed(Checkpointed, use_reentrant=False),
    "without random state": lambda: checkpointed(
        Checkpointed, use_reentrant=False, preserve_rng_state=False
    ),
    "reentrant sequence": lambda: checkpointed(InSequence, use_reentrant=True),
    "sequence": lambda: checkpointed(InSequence, use_reentrant=False),
    "wrapper": wrapped,
    "compiled part": compiled_part,
    "compiled in place": compiled_in_place,
    "compiled method": CompiledMethod,
}


@pytest.mark.parametrize("entry", ["pairs", "batches"])
@pytest.mark.parametrize("kind", SAME)
def test_hessian_is_that_of_the_plain_model(kind: str, entry: str) -> None:
    model, loss = SAME[kind](), functional.cross_entropy
    if entry == "pairs":
        objective = Objective(model, loss, (X, Y))
    else:
        objective = Objective.from_batches(model, lambda m, b: loss(m(b[0]), b[1]), [[X, Y]])
    expected = double_backward(Plain(), lambda m: loss(m(X), Y))
    assert_close(hesspipe.hessian_matrix(objective), expected)


class Slope(Plain):
    """A derivative in the inputs, as of an equation of physics or an energy."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        energy = super().forward(x).square().sum()
        (slope,) = torch.autograd.grad(energy, x, create_graph=True)
        return torch.cat([slope[:, :2].sin(), slope[:, :1] + x[:, :1]], dim=1)


class SecondSlope(Slope):
    """Its divergence."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        slope = super().forward(x)
        (second,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
        return second[:, :3]


class Adjacency(Plain):
    """A graph as a matrix."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.matrix @ self.last(self.hidden(x))
        return found


class Edges(Plain):
    """A graph as a list of edges."""

    def hidden(self, x: Tensor) -> Tensor:
        hidden, (start, end) = super().hidden(x), self.edges
        return hidden.index_add(0, end, hidden[start])


class Masked(Plain):
    """Attention between samples with a mask."""

    def hidden(self, x: Tensor) -> Tensor:
        hidden = super().hidden(x)
        scores = (hidden @ hidden.mT).masked_fill(self.matrix > 1 / N, -torch.inf)
        return scores.softmax(1) @ hidden


class Reshaped(Plain):
    """A fixed number of samples."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(N, 4))


class Placed(Plain):
    """A constant for each sample."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) + self.places


class Strict(Plain):
    """A model that checks its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != N:
            raise KeyError(f"{len(x)} samples")
        return super().forward(x)


COUPLED = [Adjacency, Edges, Masked, Reshaped, Placed, Strict]


@pytest.mark.parametrize("kind", [Slope, SecondSlope, *COUPLED])
def test_matrices_are_right_whatever_a_part_of_the_batch_is(kind: type[nn.Module]) -> None:
    model, loss = kind(), functional.cross_entropy
    objective = Objective(model, loss, (X.clone(), Y))
    assert (objective.coupling is None) == (kind not in COUPLED)
    expected = double_backward(copy.deepcopy(model), lambda m: loss(m(X.clone()), Y))
    assert_close(hesspipe.hessian_matrix(objective), expected)
    ggn, residual = hesspipe.ggn_matrix(objective), hesspipe.residual_matrix(objective)
    assert_close(ggn + residual, expected)
    assert hesspipe.spectrum(objective, matrix="ggn").eigenvalues.min() > -1e-12


@pytest.mark.parametrize("kind", [Slope, *COUPLED])
def test_matrices_of_several_whole_batches_are_right(kind: type[nn.Module]) -> None:
    model, loss = kind(), functional.cross_entropy
    batches = [{"x": X, "y": Y}, {"x": 2 * X, "y": Y.flip(0)}]
    objective = Objective.from_batches(
        model,
        lambda outputs, batch: loss(outputs, batch["y"]),
        batches,
        outputs=lambda m, batch: m(batch["x"]),
        num_samples=lambda batch: len(batch["y"]),
    )
    expected = double_backward(
        copy.deepcopy(model),
        lambda m: (loss(m(X.clone()), Y) + loss(m(2 * X), Y.flip(0))) / 2,
    )
    assert_close(hesspipe.hessian_matrix(objective), expected)
    assert_close(hesspipe.ggn_matrix(objective) + hesspipe.residual_matrix(objective), expected)


def test_several_batches_that_are_coupled_lead_to_from_batches() -> None:
    with pytest.raises(hesspipe.NotASumOverSamplesError, match=r"or, if .*Objective.from_batches"):
        Objective(Reshaped(), nn.CrossEntropyLoss(), [(X, Y), (X + 1, Y)])


OTHER_FORMS: dict[str, Any] = {
    "two dictionaries": [{"x": X, "labels": Y}, {"x": X, "labels": Y}],
    "a pair of dictionaries": ({"x": X, "labels": Y}, {"x": X, "labels": Y}),
    "one dictionary": {"x": X, "labels": Y},
    "two tensors": [X, X],
    "three parts": [(X, X, Y)],
    "nodes and edges": ((X, torch.zeros(2, 9).long()), Y),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_other_forms_of_data_lead_to_from_batches(form: str) -> None:
    with pytest.raises(ValueError, match=r"Objective.from_batches\(model, "):
        Objective(Plain(), nn.CrossEntropyLoss(), OTHER_FORMS[form])
