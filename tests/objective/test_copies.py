"""What a loss hides is copied, converted, and refused where it is a parameter of the model."""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from dense_reference import reference_matrices
from problems import assert_close, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.objective.copies import Copier
from hesspipe.objective.objective import Objective

X, Y, FACTOR = normal(6, 4), normal(6, 3, seed=5), normal(3, 3, seed=9)


class Network(nn.Module):
    """A small network with a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 3)
        self.settings = {"scale": 2.0}
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.first(inputs).tanh())
        return outputs

    def penalized(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs, targets) + self.first.weight.square().sum()

    def scaled(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.settings["scale"] * functional.mse_loss(outputs, targets)


def squares(outputs: Tensor, targets: Tensor, factor: Any) -> Tensor:
    """The loss of every test: a square weighted by a matrix (3, 3)."""
    return ((outputs - targets) @ factor).square().mean()


class Holder(nn.Module):
    """A loss module with anything in an attribute, read by a function."""

    def __init__(self, held: Any, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.held, self.read = held, read

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs, targets, self.read(self.held))


class Plain:
    """A callable object, or an object with a method, that is no module."""

    def __init__(self, held: Any, read: Callable[[Any], Tensor]) -> None:
        self.held, self.read = held, read

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs, targets, self.read(self.held))

    def method(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self(outputs, targets)


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("__held", "read")

    def __init__(self, held: Any, read: Callable[[Any], Tensor]) -> None:
        self.__held, self.read = held, read

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs, targets, self.read(self.__held))


class Pair(NamedTuple):
    """A named tuple."""

    held: Any
    other: Any


HELD: Any = None


def read_global(held: Any) -> Any:
    return held


def of_global(outputs: Tensor, targets: Tensor) -> Tensor:
    return through_helper(outputs, targets)


def through_helper(outputs: Tensor, targets: Tensor) -> Tensor:
    held, read = HELD
    return squares(outputs, targets, read(held))


def in_global(held: Any, read: Any) -> Any:
    global HELD
    HELD = (held, read)
    return of_global


def in_closure(held: Any, read: Any) -> Any:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs, targets, read(held))

    return loss


def in_inner_closure(held: Any, read: Any) -> Any:
    def weight() -> Tensor:
        return read(held)

    return lambda outputs, targets: squares(outputs, targets, weight())


def in_default(held: Any, read: Any) -> Any:
    def loss(outputs: Tensor, targets: Tensor, held: Any = held) -> Tensor:
        return squares(outputs, targets, read(held))

    return loss


def in_keyword_default(held: Any, read: Any) -> Any:
    def loss(outputs: Tensor, targets: Tensor, *, held: Any = held) -> Tensor:
        return squares(outputs, targets, read(held))

    return loss


def in_attribute(held: Any, read: Any) -> Any:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs, targets, read(loss.held))

    loss.held = held
    return loss


def wrapped(held: Any, read: Any) -> Any:
    @functools.wraps(of_global)
    def loss(*args: Any, **kwargs: Any) -> Tensor:
        return in_closure(held, read)(*args, **kwargs)

    return loss


def with_held(held: Any, read: Any, outputs: Tensor, targets: Tensor) -> Tensor:
    return squares(outputs, targets, read(held))


def with_keywords(outputs: Tensor, targets: Tensor, held: Any, read: Any) -> Tensor:
    return squares(outputs, targets, read(held))


# Places where a loss can hold something: (held, read) -> loss.
PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "module": Holder,
    "module in module": lambda held, read: nn.Sequential(Holder(held, read))[0].forward,
    "callable object": Plain,
    "bound method": lambda held, read: Plain(held, read).method,
    "slots": Slotted,
    "closure": in_closure,
    "inner closure": in_inner_closure,
    "default": in_default,
    "keyword default": in_keyword_default,
    "attribute of the function": in_attribute,
    "wrapped function": wrapped,
    "global": in_global,
    "partial": lambda held, read: partial(with_held, held, read),
    "partial by keyword": lambda held, read: partial(with_keywords, held=held, read=read),
    "nested partial": lambda held, read: partial(partial(with_held, held), read),
    "list": lambda held, read: Holder([held], lambda held: read(held[0])),
    "dictionary": lambda held, read: Plain({"a": {"b": held}}, lambda held: read(held["a"]["b"])),
    "ordered dictionary": lambda held, read: in_closure(
        OrderedDict(a=held), lambda held: read(held["a"])
    ),
    "named tuple": lambda held, read: in_closure(Pair(held, None), lambda held: read(held.held)),
    "deque": lambda held, read: in_closure(deque([held]), lambda held: read(held[0])),
    "namespace": lambda held, read: in_closure(
        SimpleNamespace(a=held), lambda held: read(held.a)
    ),
}  # fmt: skip


def identity(held: Any) -> Any:
    return held


# Ways to reach a parameter from what is held: model -> (held, read).
REACHES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "model": lambda model: (model, lambda model: model.first.weight[:, :3]),
    "layer": lambda model: (model.first, lambda layer: layer.weight[:, :3]),
    "parameter": lambda model: (model.last.weight, identity),
    "parameters": lambda model: (list(model.parameters()), lambda held: held[0][:, :3]),
    "names": lambda model: (dict(model.named_parameters()), lambda held: held["last.weight"]),
    "view": lambda model: (model.first.weight[:, :3], identity),
    "method": lambda model: (model.forward, lambda forward: FACTOR * forward(X).sum()),
}


def paired(ways: dict[str, Any]) -> list[tuple[str, str]]:
    """Every place with two of the ways, every way with several places."""
    names = sorted(ways)
    pairs = [
        (place, names[(2 * number + step) % len(names)])
        for number, place in enumerate(PLACES)
        for step in (0, 1)
    ]
    return [*pairs, *(("closure", name) for name in names)]


@pytest.mark.parametrize(("place", "reach"), paired(REACHES))
def test_objective_refuses_a_loss_that_uses_the_parameters(place: str, reach: str) -> None:
    model = Network()
    loss_fn = PLACES[place](*REACHES[reach](model))
    with pytest.raises(ValueError, match="must use parameters through the model only"):
        Objective(model, loss_fn, (X, Y))


def test_objective_refuses_a_method_of_the_model_that_uses_its_parameters() -> None:
    model = Network()
    with pytest.raises(ValueError, match=r"got first.weight used in another way"):
        Objective(model, model.penalized, (X, Y))


@pytest.mark.parametrize("place", PLACES)
def test_objective_takes_detached_parameters_for_constants(place: str) -> None:
    model = Network()
    factor = model.last.weight.detach().clone()
    for held, read in (
        (model, lambda model: model.last.weight.detach()),
        (model.last.weight.data, identity),
        (model.state_dict(), lambda state: state["last.weight"]),
        (model, lambda _: factor),  # held, but not used
    ):
        objective = Objective(model, PLACES[place](held, read), (X, Y))
        expected = reference_matrices(
            model, lambda model: model(X), lambda outputs: squares(outputs, Y, factor)
        )
        assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=200)


def test_objective_accepts_a_method_of_the_model_as_its_loss() -> None:
    model = Network()
    objective = Objective(model, model.scaled, (X, Y))
    model.settings["scale"] = 7.0
    expected = reference_matrices(
        model, lambda model: model(X), lambda outputs: 2.0 * functional.mse_loss(outputs, Y)
    )
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=200)


# Constants of a loss and a later change of them.
def changed_tensor(held: Tensor) -> None:
    held.mul_(3.0)


def changed_array(held: np.ndarray[Any, Any]) -> None:
    held *= 3.0


def changed_module(held: nn.Module) -> None:
    held.weight.data.mul_(3.0)


def changed_setting(held: dict[str, Any]) -> None:
    held["scale"] = 3.0


def linear() -> nn.Linear:
    layer = nn.Linear(3, 3, bias=False)
    layer.weight.data.copy_(FACTOR)
    return layer


CONSTANTS: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "float32 tensor": (lambda: FACTOR.float(), identity, changed_tensor),
    "parameter of the loss": (
        lambda: nn.Parameter(FACTOR.float()), torch.clone, lambda held: held.data.mul_(3.0)
    ),
    "array": (lambda: FACTOR.numpy().copy(), torch.as_tensor, changed_array),
    "module": (linear, lambda layer: layer(torch.eye(3).double()).T, changed_module),
    "setting": (lambda: {"scale": 1.0}, lambda held: held["scale"] * FACTOR, changed_setting),
    "buffer": (
        lambda: nn.BatchNorm1d(3).eval(), lambda held: torch.diag(held.running_var),
        lambda held: held.running_var.mul_(3.0),
    ),
}  # fmt: skip


def dtypes_of(value: Any) -> list[torch.dtype]:
    tensors = value.state_dict().values() if isinstance(value, nn.Module) else [value]
    return [tensor.dtype for tensor in tensors if isinstance(tensor, Tensor)]


@pytest.mark.parametrize(("place", "constant"), paired(CONSTANTS))
def test_objective_copies_and_converts_the_constants_of_a_loss(place: str, constant: str) -> None:
    build, read, change = CONSTANTS[constant]
    model, held = Network(), build()
    before = dtypes_of(held)
    factor = torch.as_tensor(read(build().double() if isinstance(held, nn.Module) else build()))
    expected = reference_matrices(
        model, lambda model: model(X), lambda outputs: squares(outputs, Y, factor.detach().double())
    )
    loss_fn = PLACES[place](held, read)
    objective = Objective(model, loss_fn, (X, Y))
    assert dtypes_of(held) == before  # the caller's loss is not converted
    with torch.no_grad():
        change(held)
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=200)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda: partial(functional.cross_entropy, label_smoothing=0.1),
        lambda: Holder(nn.CrossEntropyLoss(label_smoothing=0.1), None),
    ],
)
def test_objective_copies_the_settings_of_losses_without_tensors(build: Any) -> None:
    loss_fn, model = build(), Network()
    if isinstance(loss_fn, Holder):
        holder = loss_fn
        loss_fn = lambda outputs, targets: holder.held(outputs, targets)  # noqa: E731
    targets = Y.softmax(1)
    expected = reference_matrices(
        model, lambda model: model(X), lambda outputs: loss_fn(outputs, targets)
    )
    objective = Objective(model, loss_fn, (X, targets))
    changed = build_setting(loss_fn)
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=200)
    assert changed


def build_setting(loss_fn: Any) -> bool:
    """Change the label smoothing wherever it is."""
    if isinstance(loss_fn, partial):
        loss_fn.keywords["label_smoothing"] = 0.5
    elif isinstance(loss_fn, nn.Module):
        loss_fn.label_smoothing = 0.5
    else:
        loss_fn.__closure__[0].cell_contents.held.label_smoothing = 0.5
    return True


def test_objective_reads_what_the_model_stores_for_the_loss_from_its_copy() -> None:
    class Storing(Network):
        def forward(self, inputs: Tensor) -> Tensor:
            self.level = self.first(inputs).square().mean()
            return super().forward(inputs)

    model = Storing()
    expected = reference_matrices(
        model,
        lambda model: (model(X), model.level),
        lambda pair: functional.mse_loss(pair[0], Y) + pair[1],
        join=lambda pair: torch.cat([pair[0].flatten(), pair[1][None]]),
        split=lambda v: (v[:-1].view(6, 3), v[-1]),
    )

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs, targets) + model.level

    objective = Objective(model, loss_fn, (X, Y))
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=200)
    batches = list(zip(X.split([2, 4]), Y.split([2, 4]), strict=True))
    parts = Objective(model, loss_fn, batches, denominator=lambda outputs, _: float(len(outputs)))
    assert_close(hesspipe.hessian_matrix(parts), expected["hessian"], factor=200)
    for compute in (hesspipe.ggn_matrix, hesspipe.residual_matrix):
        with pytest.raises(ValueError, match="G and R need a loss of the outputs only"):
            compute(objective)


def test_objective_of_a_function_converts_its_data() -> None:
    data = X.float()
    objective = Objective.from_function(lambda theta: (data @ theta).square().sum(), torch.zeros(4))
    data.zero_()
    inputs = X.float().double()
    assert_close(hesspipe.hessian_matrix(objective), 2 * inputs.T @ inputs)


def test_copy_keeps_cycles_and_shares_what_cannot_be_copied() -> None:
    copier = Copier(torch.float64, torch.device("cpu"))
    generator, shared = (number for number in range(3)), torch.ones(2)
    items: list[Any] = [shared, generator, open]
    items.append({"self": items, "again": shared})
    copied = copier.copy(items)
    assert copied is not items
    assert copied[3]["self"] is copied
    assert copied[3]["again"] is copied[0]
    assert copied[0].dtype == torch.float64
    assert copied[1] is generator
    assert copied[2] is open


def test_objective_sees_parameters_through_weak_references() -> None:
    model = Network()
    for reference in (weakref.ref(model), weakref.proxy(model)):
        is_proxy = type(reference) in weakref.ProxyTypes
        found = in_closure(
            reference,
            (lambda r: r.last.weight) if is_proxy else (lambda r: r().last.weight),
        )
        with pytest.raises(ValueError, match="must use parameters through the model only"):
            Objective(model, found, (X, Y))


def test_copy_takes_a_compiled_loss_as_it_was_before() -> None:
    @torch.compile(backend="eager")
    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs, targets, FACTOR)

    model = Network()
    expected = reference_matrices(
        model, lambda model: model(X), lambda outputs: squares(outputs, Y, FACTOR)
    )
    objective = Objective(model, loss_fn, (X, Y))
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=200)


def test_copy_leaves_functions_of_libraries_as_they_are() -> None:
    copier = Copier(torch.float64, torch.device("cpu"))
    for function in (functional.cross_entropy, torch.relu, np.mean, nn.init.normal_, len):
        assert copier.copy(function) is function


def test_copy_rebuilds_recursive_functions() -> None:
    scale = torch.ones(1)

    def power(count: int) -> Tensor:
        return scale if count == 0 else 2 * power(count - 1)

    copied = Copier(torch.float64, torch.device("cpu")).copy(power)
    scale.zero_()
    assert copied(3).item() == 8
    assert power(3).item() == 0


class Degrees(tuple[int, ...]):
    """A tuple of a class that is not built from its parts, such as those of e3nn."""

    def __new__(cls, text: str) -> Degrees:
        return super().__new__(cls, map(int, text.split("+")))


class OfDegrees(nn.Module):
    """Adds powers of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.degrees = nn.Linear(4, 3), Degrees("1+2")

    def forward(self, inputs: Tensor) -> Tensor:
        return sum(self.layer(inputs) ** degree for degree in self.degrees)


def test_objective_takes_tuples_of_any_class_without_tensors() -> None:
    inputs, targets = normal(6, 4), torch.arange(6) % 3
    torch.manual_seed(0)
    model = OfDegrees().double()
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    expected = functional.cross_entropy(model(inputs), targets)
    assert_close(objective.loss(objective.theta), expected.detach())
