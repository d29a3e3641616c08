"""What each process of the tests of objectives over several processes does."""

from __future__ import annotations

import copy
import functools
import os
import signal
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from problems import labels, normal
from process_groups import raised
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import hesspipe
from hesspipe.objective import distributed
from hesspipe.objective.objective import Objective

N = 11
SIZE = 3
INPUTS, LABELS = normal(N, 4), labels(N, 3)
NUMBERS = normal(N, 3, seed=5)
WEIGHT = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
# Samples of each rank: ragged parts, a rank without any, one with ignored labels only (-100).
PARTS = {
    "ragged": ([0, 1, 2, 3, 4, 5], [6], [7, 8, 9, 10]),
    "none first": ([], [0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10]),
    "none": (list(range(9)), [], [9, 10]),
    "one has all": ([], list(range(N)), []),
    "ignored": ([0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10]),
}


def model() -> nn.Module:
    torch.manual_seed(0)
    found = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    found(INPUTS)  # running statistics
    return found.eval()


def mean_of_terms(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).cosh().mean()


def sum_of_terms(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).cosh().sum()


def rows(outputs: Tensor, _: Tensor) -> float:
    return float(len(outputs))


def one(outputs: Tensor, _: Tensor) -> float:
    return 1.0


# Name: the loss, whether its targets are labels, and arguments of Objective.
LOSSES: dict[str, tuple[Callable[..., Tensor], bool, dict[str, Any]]] = {
    "cross entropy": (nn.CrossEntropyLoss(), True, {}),
    "weighted": (nn.CrossEntropyLoss(weight=WEIGHT), True, {"weight_decay": 0.1}),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), True, {}),
    "squares": (nn.MSELoss(), False, {}),
    "batchmean": (nn.KLDivLoss(reduction="batchmean", log_target=True), False, {}),
    "own mean": (mean_of_terms, False, {"denominator": rows}),
    "own sum": (sum_of_terms, False, {"denominator": one}),
    "restricted": (nn.CrossEntropyLoss(), True, {"parameters": ["0.*", "3.bias"]}),
    "float32": (nn.CrossEntropyLoss(), True, {"dtype": torch.float32}),
}
OPERATORS = {
    "hessian": hesspipe.HessianOperator,
    "ggn": hesspipe.GGNOperator,
    "residual": hesspipe.ResidualOperator,
}


def targets_of(loss: str, parts: str) -> Tensor:
    """Return all targets; of the parts with ignored labels, those of rank 1 are."""
    if not LOSSES[loss][1]:
        return NUMBERS
    found = LABELS.clone()
    if parts == "ignored":
        found[PARTS[parts][1]] = -100
    return found


def objective_of(loss: str, parts: str, places: list[int], **more: Any) -> Objective:
    function, _, arguments = LOSSES[loss]
    batches = [
        (INPUTS[some], targets_of(loss, parts)[some])
        for some in (places[:3], places[3:])
        if some or not places
    ]
    return Objective(more.pop("model", None) or model(), function, batches, **arguments | more)


def products(rank: int, cases: list[tuple[str, str]]) -> dict[str, Any]:
    """Products with H, G and R, and the loss, of all losses and parts."""
    found: dict[str, Any] = {}
    group = dist.group.WORLD
    for loss, parts in cases:
        objective = objective_of(loss, parts, PARTS[parts][rank], process_group=group)
        vectors = normal(objective.num_parameters, 2).to(objective.dtype)
        found[f"{loss}, {parts}"] = {
            "num_data": objective.num_data,
            "loss": objective.loss(objective.theta),
            **{name: make(objective) @ vectors for name, make in OPERATORS.items()},
        }
    return found


class Again:
    """Data that are read anew at every pass."""

    def __init__(self, places: list[int]) -> None:
        self.places = places

    def __iter__(self) -> Any:
        return iter([(INPUTS[some], LABELS[some]) for some in (self.places[:2], self.places[2:])])


def whole_loss(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(net(batch["x"]), batch["y"])


def computed(rank: int, folder: str) -> dict[str, Any]:
    """Eigenpairs, density, norms, blocks, streams, whole batches, wrapped models and a monitor."""
    group, parts = dist.group.WORLD, PARTS["ragged"][rank]
    objective = objective_of("cross entropy", "ragged", parts, process_group=group)
    size = objective.num_parameters
    block = hesspipe.DiagonalBlock(hesspipe.GGNOperator(objective), torch.arange(size) < 20)
    state = Path(folder, f"state{rank}.safetensors")
    batches = [{"x": INPUTS[[place]], "y": LABELS[[place]]} for place in parts]
    from_batches = Objective.from_batches(
        model(), whole_loss, batches, num_samples=lambda batch: len(batch["y"]), process_group=group
    )
    wrapped = DistributedDataParallel(model())
    vector = normal(size, 1)[:, 0]
    streamed = Objective(
        model(), nn.CrossEntropyLoss(), Again(parts), stream=True, process_group=group
    )
    found = {
        "pairs": hesspipe.eigenpairs(
            objective, num_smallest=1, num_largest=2, state=state, keep_state=True
        ),
        "has_state": state.exists(),
        "density": hesspipe.density(objective, "ggn", num_probes=2, num_steps=8),
        "norms": hesspipe.estimate_norms(objective, "residual", num_products=12),
        "block": hesspipe.spectrum(block),
        "hard": raised(lambda: hesspipe.eigenpairs(objective, num_largest=2, max_products=3)),
        "streamed": hesspipe.HessianOperator(streamed) @ vector,
        "whole batches": hesspipe.HessianOperator(from_batches) @ vector,
        "wrapped": hesspipe.HessianOperator(
            objective_of("cross entropy", "ragged", parts, model=wrapped, process_group=group)
        ) @ vector,
        "monitored": monitored(rank, objective, folder),
    }  # fmt: skip
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    """Take the numbers out of a result, to compare them bit by bit."""
    names = {
        "Eigenpairs": ["eigenvalues", "eigenvectors", "residual_norms"],
        "Density": ["nodes", "weights", "couplings"],
        "Spectrum": ["eigenvalues"],
    }.get(type(value).__name__)
    if type(value).__name__ == "NormEstimates":
        return value.trace.value, value.frobenius_norm.value
    return {name: getattr(value, name) for name in names} if names else value


def monitored(rank: int, objective: Objective, folder: str) -> list[list[Any]]:
    """Train the same model in all ranks, with a monitor that writes a file."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    path = Path(folder, f"monitor{rank}.parquet")
    monitor = hesspipe.Monitor(objective, net, optimizer, every=1, path=path, trace_products=6)
    paced = hesspipe.Monitor(objective, net, every=1, budget=1e6, verify_every=2)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(INPUTS), LABELS).backward()
        optimizer.step()
        monitor.step()
        paced.step()
    assert paced.table["end"].tolist() == ["largest", "smallest", "largest"]  # the first is cheap
    assert path.exists() == (rank == 0)
    columns = ["step", "eigenvalue", "loss", "critical_sharpness", "trace"]
    found: list[list[Any]] = monitor.table[columns].values.tolist()
    return found


def other_reduction(rank: int, build: Callable[..., Any]) -> None:
    build(loss_fn=nn.CrossEntropyLoss(reduction="sum" if rank == 1 else "mean"))


def moved(rank: int) -> nn.Module:
    found = model()
    with torch.no_grad():
        found[0].weight[0, 0] += 1e-15 * rank
    return found


def with_other_buffer(rank: int) -> nn.Module:
    found = model()
    found[1].running_mean[0] += rank
    return found


class Scaled(nn.Module):
    """A layer with plain settings, some of which say which process this is."""

    def __init__(self, scale: float, rank: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scale, self.rank, self.function = scale, rank, function
        self.powers: tuple[float, ...] = (1.0,)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.function(inputs) ** self.powers[0]


class Hidden(nn.Module):
    """A layer whose function depends on what no description of it has."""

    def __init__(self, kind: str, is_other: bool) -> None:
        super().__init__()
        self._kind, self._factor = kind, 1.0 + is_other
        self.factors = {"own": self._factor}
        self._is_reversed = is_other

    def forward(self, inputs: Tensor) -> Tensor:
        if self._kind == "rounding":  # the same function, added up in another order
            terms = [inputs, inputs.cos(), 3 * inputs.sin(), inputs / 7]
            return functools.reduce(torch.add, terms[::-1] if self._is_reversed else terms)
        factor = {
            "private": self._factor,
            "dictionary": self.factors["own"],
            "environment": float(os.environ.get("FACTOR_OF_A_TEST", "1")),
        }.get(self._kind, 1.0)
        return factor * inputs.tanh()


def hidden(kind: str, rank: int) -> nn.Module:
    """Make a model that is another one in rank 1."""
    layer = Hidden(kind, rank == 1)
    if rank == 1:
        os.environ["FACTOR_OF_A_TEST"] = "2"
    if kind == "hook" and rank == 1:
        layer.register_forward_hook(lambda _, __, outputs: 2 * outputs)
    return with_layer(2, layer)


def hidden_differences(rank: int) -> dict[str, Any]:
    """Objectives of models that are others in rank 1, with data of every form."""
    group, parts = dist.group.WORLD, PARTS["none first"][rank]
    data = INPUTS[parts], LABELS[parts]
    batches = [{"x": data[0], "y": data[1]}] if parts else []

    def built(kind: str, form: str) -> Objective:
        net = hidden(kind, rank)
        if form == "whole batches":
            return Objective.from_batches(
                net, whole_loss, batches, num_samples=lambda b: len(b["y"]), process_group=group
            )
        pairs: Any = {
            "a batch": data,
            "a stream": [data] if parts else [],
            "fields": ((data[0],), data[1]) if parts else [],
        }[form]
        is_stream = form == "a stream"
        return Objective(net, nn.CrossEntropyLoss(), pairs, stream=is_stream, process_group=group)

    forms = dict.fromkeys(HIDDEN, "a batch") | {"rounding": "a batch"}
    found = {kind: raised(lambda: built(kind, form)) for kind, form in forms.items()}  # noqa: B023
    for form in ("a stream", "fields", "whole batches"):
        found[form] = raised(lambda: built("private", form))  # noqa: B023
    return found


HIDDEN = ["private", "dictionary", "environment", "hook"]


def powers(power: float) -> nn.Module:
    layer = Scaled(1.0, 0, torch.tanh)
    layer.powers = (power,)
    return layer


def with_layer(place: int, layer: nn.Module) -> nn.Module:
    found = model()
    found[place] = layer.double().eval()
    return found


def weighted_by(weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: weight * nn.functional.cross_entropy(outputs, targets)


class Interrupting(nn.Module):
    """A loss that a user stops in one rank."""

    def __init__(self, is_stopped: bool) -> None:
        super().__init__()
        self._is_stopped, self._calls = is_stopped, 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self._is_stopped:
            os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(outputs, targets)


class Failing(nn.Module):
    """A loss that raises in one rank, at the n-th evaluation after `arm`."""

    failure: Callable[[], Any] | None = None

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if Failing.failure is not None:
            Failing.failure()
        return nn.functional.cross_entropy(outputs, targets)


def _raise(error: BaseException) -> None:
    raise error


def with_other_code(rank: int, build: Callable[[], Any]) -> None:
    """Build with another hesspipe in rank 1, of the same version."""
    own = distributed.code_of_package
    distributed.code_of_package = lambda: own()[::-1] if rank == 1 else own()  # type: ignore[assignment]
    try:
        build()
    finally:
        distributed.code_of_package = own


def refusals(rank: int) -> dict[str, Any]:
    """What differs or fails in one rank; afterwards the group is still used."""
    group, parts = dist.group.WORLD, PARTS["ragged"][rank]

    def build(**changes: Any) -> Objective:
        net, function = changes.pop("model", None) or model(), changes.pop("loss_fn", None)
        data = changes.pop("data", (INPUTS[parts], LABELS[parts]))
        function = function or nn.CrossEntropyLoss()
        return Objective(net, function, data, process_group=group, **changes)

    bad = INPUTS[parts] * (float("nan") if rank == 1 else 1.0)
    wrong = LABELS[parts] + (7 if rank == 2 else 0)
    names = ["0.*"] if rank else ["3.*"]
    found = {
        "reduction": raised(lambda: other_reduction(rank, build)),
        "class weight": raised(
            lambda: build(loss_fn=nn.CrossEntropyLoss(weight=WEIGHT + (rank == 2)))
        ),
        "own loss": raised(lambda: build(loss_fn=weighted_by(1.0 + rank))),
        "own partial": raised(
            lambda: build(loss_fn=partial(nn.functional.cross_entropy, label_smoothing=0.1 * rank))
        ),
        "dtype": raised(lambda: build(dtype=torch.float32 if rank else torch.float64)),
        "code": raised(lambda: with_other_code(rank, build)),
        "decay": raised(lambda: build(weight_decay=0.1 * rank)),
        "moved": raised(lambda: build(model=moved(rank))),
        "buffer": raised(lambda: build(model=with_other_buffer(rank))),
        "layer": raised(lambda: build(model=with_layer(2, nn.ReLU() if rank else nn.Tanh()))),
        "setting": raised(lambda: build(model=with_layer(2, nn.ELU(1.0 + rank)))),
        "own setting": raised(
            lambda: build(model=with_layer(2, Scaled(1.0 + (rank == 1), rank, torch.tanh)))
        ),
        "own function": raised(
            lambda: build(
                model=with_layer(2, Scaled(1.0, rank, torch.sin if rank == 2 else torch.tanh))
            )
        ),
        "own tuple": raised(lambda: build(model=with_layer(2, powers(1.0 + (rank == 1))))),
        "own function with arguments": raised(
            lambda: build(
                model=with_layer(
                    2, Scaled(1.0, 0, partial(nn.functional.elu, alpha=1.0 + (rank == 1)))
                )
            )
        ),
        "mode": raised(lambda: build(model=model().train(rank == 1))),
        "features": raised(lambda: build(data=(INPUTS[parts, : 4 - (rank == 1)], LABELS[parts]))),
        "same layers": raised(lambda: build(model=with_layer(2, Scaled(1.0, rank, torch.tanh)))),
        "parameters": raised(lambda: build(parameters=names)),
        "nan": raised(lambda: build(data=(bad, LABELS[parts]))),
        "labels": raised(lambda: build(data=(INPUTS[parts], wrong))),
        "no data": raised(lambda: build(data=[])),
        "no valid": raised(lambda: build(data=(INPUTS[parts], LABELS[parts] * 0 - 100))),
        "coupled": raised(lambda: build(loss_fn=lambda o, t: o.std(), denominator=rows)),
        "interrupted": raised(lambda: build(loss_fn=Interrupting(rank == 1), denominator=rows)),
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(data=(INPUTS, LABELS))
    found["overlap"] = ([], " ".join(str(one.message) for one in caught))
    objective = build(loss_fn=Failing(), denominator=rows)
    found |= calls(rank, objective)
    found["after"] = ([], f"{hesspipe.density(objective, num_probes=1, num_steps=3).dim}")
    return found


def calls(rank: int, objective: Objective) -> dict[str, Any]:
    """Calls that differ, or fail in one rank."""
    operator = hesspipe.HessianOperator(objective)
    size = objective.num_parameters
    found = {
        "seed": raised(lambda: hesspipe.density(objective, seed=rank, num_steps=3)),
        "steps": raised(lambda: hesspipe.density(objective, num_steps=3 + (rank == 2))),
        "tolerance": raised(
            lambda: hesspipe.eigenpairs(objective, num_largest=1, tolerance=10.0**-rank)
        ),
        "matrix": raised(
            lambda: hesspipe.estimate_norms(objective, "ggn" if rank else "hessian")
        ),
        "function": raised(
            lambda: hesspipe.density(operator) if rank else hesspipe.eigenpairs(operator)
        ),
        "dtype of vectors": raised(
            lambda: operator @ normal(size, 1).to(torch.float32 if rank == 1 else torch.float64)
        ),
        "kind of vectors": raised(lambda: operator @ (None if rank == 2 else normal(size, 1))),
        "block": raised(
            lambda: (
                hesspipe.DiagonalBlock(operator, torch.arange(size) < 9)
                @ normal(9 - (rank == 1), 1)
            )
        ),
        "gradient of a loss": raised(
            lambda: objective.loss(objective.theta.detach().requires_grad_(rank == 1))
        ),
        "interval of a monitor": raised(
            lambda: hesspipe.Monitor(objective, model(), every=0 if rank == 1 else 1)
        ),
        "number of a monitor": raised(
            lambda: hesspipe.Monitor(objective, model(), every=1).step(-1 if rank == 1 else 1)
        ),
        "vector": raised(lambda: operator @ normal(size, 1, seed=rank)),
        "argument": raised(lambda: hesspipe.density(objective, num_steps=0)),
        "dense": raised(lambda: hesspipe.spectrum(objective)),
        "layers": raised(lambda: hesspipe.layer_spectra(objective)),
    }  # fmt: skip
    failures: dict[str, Callable[[], Any]] = {
        "loss error": lambda: _raise(KeyError("my key")),
        "memory": lambda: _raise(MemoryError("not enough memory")),
        "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    }
    for failing in (0, 2):
        for name, failure in failures.items():
            Failing.failure = failure if rank == failing else None
            fresh = copy.copy(objective)
            found[f"{name} of {failing} in density"] = raised(
                lambda fresh=fresh: hesspipe.density(fresh, num_steps=3)
            )
            found[f"{name} of {failing} in a product"] = raised(
                lambda fresh=fresh: hesspipe.HessianOperator(fresh) @ normal(size, 1)
            )
    Failing.failure = None
    return found


def death(rank: int) -> Any:
    """A rank is killed in a product."""
    objective = Objective(
        model(), Failing(), (INPUTS[rank::SIZE], LABELS[rank::SIZE]),
        denominator=rows, process_group=dist.group.WORLD,
    )  # fmt: skip
    if rank == 1:
        Failing.failure = lambda: os.kill(os.getpid(), signal.SIGKILL)
    return raised(lambda: hesspipe.eigenpairs(objective, num_largest=1))
