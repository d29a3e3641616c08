"""Errors that torch raises inside a model or a loss become one line with advice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.errors import TooLargeError
from hesspipe.objective.batches import Batch
from hesspipe.objective.explanations import explained
from hesspipe.objective.objective import Objective

X, CLASSES, REAL = normal(6, 4), labels(6, 3), normal(6, 3)
WHOLE = labels(18, 2).view(6, 3)
DTYPE, NUMBERS = r"make tensors in forward.*dtype=torch.float32", r"targets.float\(\)"


class Then(nn.Module):
    """A layer and a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3), function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.layer(inputs))


def missing(hidden: Tensor) -> Any:
    return {}["scale"]


MODELS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "product": (lambda hidden: hidden @ torch.ones(3, 3), DTYPE),
    "linear": (lambda hidden: functional.linear(hidden, torch.ones(3, 3)), DTYPE),
    "convolution": (
        lambda hidden: functional.conv1d(hidden[:, None], torch.ones(1, 1, 1))[:, 0], DTYPE
    ),
    "products": (lambda hidden: torch.einsum("ni,ij->nj", hidden, torch.eye(3)), DTYPE),
    "scatter": (lambda hidden: torch.zeros(6, 3).scatter_add(1, WHOLE, hidden), DTYPE),
    "addition": (lambda hidden: torch.zeros(6, 3).index_add(0, torch.arange(6), hidden), DTYPE),
    "assignment": (lambda h: torch.zeros(6, 3).index_put((torch.arange(6),), h), DTYPE),
    "shapes": (lambda hidden: hidden @ hidden, "every sample is one row"),
    "another error": (missing, "got KeyError: 'scale' .*without hesspipe first"),
}  # fmt: skip
LOSSES: dict[str, tuple[Any, Tensor, str]] = {
    "logistic": (nn.BCEWithLogitsLoss(), WHOLE, NUMBERS),
    "logistic of flags": (nn.BCEWithLogitsLoss(), WHOLE > 0, NUMBERS),
    "huber": (nn.HuberLoss(), WHOLE, NUMBERS),
    "one-hot numbers": (nn.CrossEntropyLoss(), functional.one_hot(CLASSES, 3), NUMBERS),
    "labels as numbers": (nn.CrossEntropyLoss(), CLASSES.double(), r"targets.long\(\)"),
    "labels of 32 bits": (nn.CrossEntropyLoss(), CLASSES.int(), r"targets.long\(\)"),
    "labels too large": (nn.CrossEntropyLoss(), CLASSES + 5, "from 0 to the number of outputs"),
    "more targets": (nn.CrossEntropyLoss(), labels(9, 3), "every sample is one row"),
    "float32": (lambda o, t: ((o - t) @ torch.ones(3, 3)).square().mean(), REAL, DTYPE),
}


def assert_one_line(message: str) -> None:
    assert message.startswith("model and loss_fn must run on the data in torch.float64, got ")
    assert "batch 0: inputs (6, 4) of float64, targets (" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", MODELS)
def test_errors_of_a_model_are_explained(name: str) -> None:
    function, advice = MODELS[name]
    with pytest.raises(ValueError, match=advice) as found:
        Objective(Then(function), nn.CrossEntropyLoss(), (X, CLASSES))
    assert_one_line(str(found.value))


@pytest.mark.parametrize("name", LOSSES)
def test_errors_of_a_loss_are_explained(name: str) -> None:
    loss_fn, targets, advice = LOSSES[name]
    with pytest.raises(ValueError, match=advice) as found:
        Objective(nn.Linear(4, 3), loss_fn, (X, targets))
    assert_one_line(str(found.value))


class _FailsAfter(nn.Module):
    """A cross-entropy loss that fails after some calls, of all its copies together."""

    calls, last = 0, 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        _FailsAfter.calls += 1
        if _FailsAfter.calls > _FailsAfter.last:
            raise KeyError("lost")
        return functional.cross_entropy(outputs, targets)


def _build_and_multiply() -> None:
    """Build an objective, at last at other parameters, where a loss need not be defined."""
    objective = Objective(nn.Linear(4, 3), _FailsAfter(), (X, CLASSES))
    _ = hesspipe.HessianOperator(objective) @ torch.ones(15).double()


@pytest.mark.parametrize("ninths", range(10))
def test_errors_of_a_loss_are_explained_whenever_they_come(
    ninths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_FailsAfter, "calls", 0)
    monkeypatch.setattr(_FailsAfter, "last", torch.inf)
    Objective(nn.Linear(4, 3), _FailsAfter(), (X, CLASSES))
    monkeypatch.setattr(_FailsAfter, "last", ninths * (_FailsAfter.calls - 1) // 9)
    monkeypatch.setattr(_FailsAfter, "calls", 0)
    with pytest.raises(ValueError, match=r"KeyError: 'lost' \(batch 0: "):
        _build_and_multiply()


@pytest.mark.parametrize(
    "call",
    [
        hesspipe.spectrum,
        hesspipe.ggn_matrix,
        lambda objective: hesspipe.spectrum(objective, "residual", "columns"),
        lambda objective: hesspipe.eigenpairs(objective, "ggn"),
        lambda objective: hesspipe.HessianOperator(objective) @ torch.ones(15).double(),
    ],
    ids=["spectrum", "ggn", "columns", "eigenpairs", "product"],
)
def test_errors_of_a_loss_are_explained_after_the_construction(
    call: Callable[[Objective], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_FailsAfter, "calls", 0)
    monkeypatch.setattr(_FailsAfter, "last", torch.inf)
    objective = Objective(nn.Linear(4, 3), _FailsAfter(), (X, CLASSES))
    monkeypatch.setattr(_FailsAfter, "last", _FailsAfter.calls)
    with pytest.raises(ValueError, match=r"KeyError: 'lost' \(batch 0: ") as found:
        call(objective)
    assert_one_line(str(found.value))


@pytest.mark.parametrize("number", [0, 1])
def test_errors_name_the_batch_and_its_shapes(number: int) -> None:
    batches = [(X, CLASSES), (X, CLASSES)]
    batches[number] = normal(20, 4), labels(10, 3)
    shapes = r"inputs \(20, 4\) of float64, targets \(10,\) of int64"
    with pytest.raises(ValueError, match=rf"\(batch {number}: {shapes}\); every sample is one row"):
        Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), batches)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_errors_of_integer_inputs_are_explained(dtype: torch.dtype) -> None:
    inputs = torch.ones(6, 4, dtype=dtype)
    with pytest.raises(ValueError, match=r"with inputs.float\(\)"):
        Objective(nn.Linear(4, 3), nn.MSELoss(), (inputs, REAL))


@pytest.mark.parametrize("loss_fn", ["mse", 3, torch.ones(2)])
def test_losses_that_are_no_functions_are_refused(loss_fn: Any) -> None:
    with pytest.raises(ValueError, match=r"loss_fn.*must be functions"):
        Objective(nn.Linear(4, 3), loss_fn, (X, REAL))


@pytest.mark.parametrize("model", [nn.Linear, lambda inputs: inputs, "model", None])
def test_models_that_are_no_modules_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"must be an instance of nn\.Module, got"):
        Objective(model, nn.MSELoss(), (X, REAL))


@pytest.mark.parametrize("loss_fn", [torch.dot, functional.linear, torch.linalg.norm])
def test_losses_of_other_arguments_are_explained(loss_fn: Any) -> None:
    with pytest.raises(ValueError, match=r"must run on the data|must return a sc"):
        Objective(nn.Linear(4, 3), loss_fn, (X, REAL))


def test_errors_of_a_function_of_theta_are_explained() -> None:
    with pytest.raises(ValueError, match=DTYPE):
        Objective.from_function(lambda theta: (torch.ones(3, 3) @ theta).sum(), torch.zeros(3))


@pytest.mark.parametrize(
    "error",
    [
        TooLargeError("too large"),
        RuntimeError("derivative for aten::some_op is not implemented"),
        KeyboardInterrupt(),
    ],
)
def test_explained_leaves_other_errors_as_they_are(error: BaseException) -> None:
    batch = Batch(X, CLASSES, 1.0)
    with pytest.raises(type(error)) as found, explained(batch, 0, torch.float64):
        raise error
    assert found.value is error


@pytest.mark.parametrize("method", ["auto", "columns"])
@pytest.mark.parametrize("place", ["model", "loss"])
def test_what_is_tied_to_the_number_of_samples_is_right_on_one_batch(
    place: str, method: Any
) -> None:
    def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
        losses = functional.cross_entropy(outputs, targets, reduction="none")
        return (losses * torch.arange(6)).sum()

    model = Then(lambda outputs: outputs * torch.arange(6).unsqueeze(1))
    is_model = place == "model"
    chosen = model if is_model else nn.Linear(4, 3)
    loss_fn = nn.CrossEntropyLoss() if is_model else weighted
    objective = Objective(chosen, loss_fn, (X, CLASSES))
    assert (objective.coupling is not None) == is_model

    def loss(theta: Tensor) -> Tensor:
        rows = functional.linear(X, theta[:12].view(3, 4), theta[12:])
        return loss_fn(rows * torch.arange(6).unsqueeze(1) if is_model else rows, CLASSES)

    expected = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, objective.theta))
    found = hesspipe.spectrum(objective, method=method)
    assert (found.eigenvalues - expected).abs().max() <= found.error_bound
    with pytest.raises(ValueError, match=r"pass .*all the data as one batch"):
        Objective(chosen, loss_fn, [(X, CLASSES), (X, CLASSES)])
