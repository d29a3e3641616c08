"""What each process of a sharded objective computes, for tests/sharded."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from losses import LOSSES, NUM_INPUTS, NUM_SAMPLES
from losses_by_derivatives import LOSSES as DERIVATIVES
from losses_by_derivatives import REFUSED
from problems import labels, network, normal
from process_groups import raised
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import hesspipe
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.sharded_products import ShardedProducts
from hesspipe.linalg.rank_state import RankState

INPUTS = normal(NUM_SAMPLES, NUM_INPUTS)
# Samples of each rank, by the number of ranks.
PARTS = {
    1: [slice(0, 9)],
    2: [slice(0, 4), slice(4, 9)],
    3: [slice(0, 2), slice(2, 3), slice(3, 9)],
}
SEARCH: dict[str, Any] = {"num_smallest": 2, "num_largest": 2, "basis_size": 12}


class Recurrent(nn.Module):
    """A recurrent layer, which holds its parameters in a list, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 2, batch_first=True)
        self.out = nn.Linear(2, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.lstm(inputs)[0][:, -1])


class Tied(nn.Module):
    """An embedding with padding whose weight is also that of the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3, padding_idx=2)
        self.last = nn.Linear(3, 5)
        self.last.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.embed(tokens).mean(1))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True, activation="gelu")
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


def frozen() -> nn.Module:
    model = network([4, 5, 3], "tanh")
    model[1].weight.requires_grad_(False)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor]] = {
    "recurrent": (Recurrent, normal(9, 4, 3), labels(9, 3)),
    "tied with padding": (Tied, labels(36, 5).view(9, 4), labels(9, 5)),
    "encoder": (encoder, normal(9, 3, 4), labels(9, 3)),
    "convolutional": (convolutional, normal(9, 1, 4, 4), labels(9, 3)),
    "frozen": (frozen, normal(9, 4), labels(9, 3)),
}


def model_of(name: str) -> nn.Module:
    torch.manual_seed(5)
    return MODELS[name][0]().double()


def sharded(model: nn.Module, size: int) -> nn.Module:
    """Apply fully_shard to the children, and to the whole; it unties weights of two children."""
    mesh = init_device_mesh("cpu", (size,))
    for child in [] if isinstance(model, Tied) else list(model.children()):
        if any(True for _ in child.parameters()) and not isinstance(child, nn.LSTM):
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def of_tensors(model: nn.Module, size: int) -> nn.Module:
    """Divide parameters by columns, replicate or leave them, one after the other."""
    mesh = init_device_mesh("cpu", (size,))
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if value.ndim == 2:
                place = Shard(1) if len(value) > 3 else Replicate()
                module.register_parameter(
                    name, nn.Parameter(distribute_tensor(value.detach(), mesh, [place]))
                )
    return model


def products(objective: Any, matrices: Sequence[str]) -> dict[str, Tensor]:
    """Whole products with one whole vector."""
    vector = normal(objective.num_parameters, seed=3)
    space = objective.space
    own = torch.cat(
        [piece.part_of(vector[piece.offset :][: piece.shape.numel()]) for piece in space.pieces]
    )
    found = {}
    for name in matrices:
        multiply = ShardedProducts(objective, Matrix(name)).multiply
        found[name] = objective.gather(multiply(own))
    if "residual" not in matrices:  # the last one again, from kept graphs
        assert torch.equal(found[matrices[-1]], objective.gather(multiply(own)))
    return found


def every_loss(rank: int, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (loss, targets) in LOSSES.items():
        part = PARTS[size][rank]
        model = sharded(network([NUM_INPUTS, 4, 3], "tanh"), size)
        objective = hesspipe.ShardedObjective(
            model,
            loss,
            (INPUTS[part], targets[part]),
            denominator=None if isinstance(loss, nn.Module) else lambda o, t: float(len(t)),
            weight_decay=0.1,
        )
        matrices = ["hessian", "ggn", "residual"] if size == 2 else ["hessian"]
        found[name] = products(objective, matrices)
        found[name]["loss"] = objective.loss(objective.theta)
    return found


def every_model(rank: int, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (_, inputs, targets) in MODELS.items():
        part = PARTS[size][rank]
        objective = hesspipe.ShardedObjective(
            sharded(model_of(name), size), nn.CrossEntropyLoss(), (inputs[part], targets[part])
        )
        found[name] = products(objective, ["hessian", "ggn"])
    model = of_tensors(network([4, 5, 3], "tanh"), size)
    data = INPUTS, labels(9, 3)
    objective = hesspipe.ShardedObjective(
        model, nn.CrossEntropyLoss(), data, data_on_ranks="same" if size > 1 else "parts"
    )
    found["placements"] = products(objective, ["hessian", "ggn"])
    batches = [{"x": data[0][part], "y": data[1][part]} for part in [PARTS[size][rank]]]
    objective = hesspipe.ShardedObjective.from_batches(
        sharded(network([4, 5, 3], "tanh"), size),
        lambda model, batch: nn.functional.cross_entropy(model(batch["x"]), batch["y"]),
        batches,
        num_samples=lambda batch: len(batch["y"]),
    )
    found["whole batches"] = products(objective, ["hessian"])
    return found


def parts_as_batches(size: int) -> list[dict[str, Tensor]]:
    return [{"x": INPUTS[part], "y": labels(9, 3)[part]} for part in PARTS[size]]


def derivatives(rank: int, size: int) -> dict[str, Any]:
    batch = parts_as_batches(size)[rank]

    def build(loss: Any) -> Any:
        model = sharded(network([NUM_INPUTS, 4, 3], "tanh"), size)
        return hesspipe.ShardedObjective.from_batches(
            model, loss, [batch], num_samples=lambda batch: len(batch["y"])
        )

    found = {name: products(build(loss), ["hessian"]) for name, loss in DERIVATIVES.items()}
    refused = {name: raised(lambda: build(loss)) for name, (loss, _) in REFUSED.items()}  # noqa: B023
    return {"products": found, "refused": refused}


def problem(rank: int, size: int, dtype: torch.dtype = torch.float64) -> Any:
    """One rank has ragged batches, one only ignored labels, and one, of three, no data."""
    inputs, targets = INPUTS, labels(9, 3)
    targets[:2] = -100
    data = {
        1: [[(inputs, targets)]],
        2: [[(inputs[:2], targets[:2])], [(inputs[2:3], targets[2:3]), (inputs[3:], targets[3:])]],
        3: [
            [(inputs[:2], targets[:2])],
            [(inputs[2:5], targets[2:5]), (inputs[5:], targets[5:])],
            [],
        ],
    }[size][rank]
    model = sharded(network([4, 5, 3], "tanh"), size)
    return hesspipe.ShardedObjective(model, nn.CrossEntropyLoss(), data, dtype=dtype)


def methods(rank: int, size: int) -> dict[str, Any]:
    objective = problem(rank, size)
    pairs = hesspipe.eigenpairs(objective, **SEARCH)
    density = hesspipe.density(objective, "ggn", num_probes=2, num_steps=12)
    found: dict[str, Any] = {
        "num_data": objective.num_data,
        "theta": objective.gather(objective.theta),
        "length": len(objective.theta),
        "eigenvalues": pairs.eigenvalues,
        "eigenvectors": objective.gather(pairs.eigenvectors),
        "residual_norms": pairs.residual_norms,
        "num_products": pairs.num_products,
        "density": {name: getattr(density, name) for name in ("nodes", "weights", "overlaps")},
    }
    for count in (12, 60, 100):
        norms = hesspipe.estimate_norms(objective, num_products=count)
        found[f"norms {count}"] = [
            norms.trace.value, norms.trace.standard_error,
            norms.frobenius_norm.value, norms.frobenius_norm.standard_error,
        ]  # fmt: skip
    single = problem(rank, size, torch.float32)
    found["float32"] = hesspipe.eigenpairs(single, num_largest=2, tolerance=1e-5).eigenvalues
    return found


class Noisy(nn.Linear):
    """Another function at every call."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + torch.rand(1)


class Centered(nn.Linear):
    """A function that couples samples."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs - inputs.mean(0))


class Changed(nn.Linear):
    """A function that fails on the data of one rank."""

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) == 4:
            raise KeyError("four")
        return super().forward(inputs)


class Scaled(nn.Linear):
    """A function with a setting, a buffer and a function, none of which is a parameter."""

    def __init__(
        self, scale: float = 1.0, offset: float = 0.0, power: float = 1.0, hidden: float = 1.0
    ) -> None:
        super().__init__(4, 3, dtype=torch.float64)
        self.scales, self.change = (scale, 1.0), functools.partial(torch.pow, exponent=power)
        self._hidden = hidden
        self.register_buffer("offset", torch.full((3,), offset))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.change(super().forward(inputs)) * self.scales[0] + self.offset
        return self._hidden * outputs


class ScaledTwice(Scaled):
    """Another function with the same parameters."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


class Weighted(nn.Module):
    """A loss with a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.factor * nn.functional.cross_entropy(outputs, targets)


def one_layer(kind: type[nn.Module] = Scaled, **settings: Any) -> Callable[[int], nn.Module]:
    def make(size: int) -> nn.Module:
        torch.manual_seed(0)
        return sharded(kind(**settings), size)

    return make


def different(rank: int, size: int) -> dict[str, Any]:
    """Build objectives of which rank 1 has another model or loss, with equal parameters."""
    part = INPUTS[PARTS[size][rank]], labels(9, 3)[PARTS[size][rank]]
    factor = 1.0 + rank
    by_class = ScaledTwice if rank else Scaled
    models = {
        "a setting": one_layer(scale=factor),
        "a buffer": one_layer(offset=factor),
        "a function": one_layer(power=factor),
        "a class": one_layer(by_class),
        "a private attribute": one_layer(hidden=factor),
    }
    losses: dict[str, Callable[..., Tensor]] = {
        "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, factor, 1.0]).double()),
        "label smoothing": nn.CrossEntropyLoss(label_smoothing=0.1 * rank),
        "a factor": Weighted(factor),
        "a closure": lambda outputs, targets: (
            factor * nn.functional.cross_entropy(outputs, targets)
        ),
    }
    held = one_layer()(size)

    def same(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets) * len(held.scales) / 2

    def build(model: nn.Module, loss: Callable[..., Tensor]) -> Any:
        rows: Any = None if isinstance(loss, nn.CrossEntropyLoss) else lambda o, t: float(len(t))
        return hesspipe.ShardedObjective(model, loss, part, denominator=rows)

    found = {
        name: raised(lambda: build(make(size), nn.CrossEntropyLoss()))  # noqa: B023
        for name, make in models.items()
    }
    found |= {name: raised(lambda: build(one_layer()(size), loss)) for name, loss in losses.items()}  # noqa: B023
    return found | {"nothing": raised(lambda: build(held, same))}


def refusals(rank: int, size: int) -> dict[str, Any]:
    part = PARTS[size][rank]
    inputs, targets = INPUTS, labels(9, 3)

    def build(model: nn.Module, loss: Any = None, data: Any = None, **settings: Any) -> Any:
        data = (inputs[part], targets[part]) if data is None else data
        return hesspipe.ShardedObjective(model, loss or nn.CrossEntropyLoss(), data, **settings)

    def linear() -> nn.Module:
        return sharded(network([4, 3], "tanh"), size)

    bad = inputs[part].clone()
    bad[0] = torch.nan if rank == 1 else bad[0]
    moved = network([4, 3], "tanh")
    moved[1].bias.data += rank
    objective = build(linear())
    regularized = linear()
    cases: dict[str, Callable[[], Any]] = {
        "random": lambda: build(sharded(Noisy(4, 3).double(), size)),
        "nan": lambda: build(linear(), data=(bad, targets[part])),
        "raises": lambda: build(sharded(Changed(4, 3).double(), size)),
        "same": lambda: build(linear(), data=(inputs, targets)),
        "parts": lambda: build(linear(), data_on_ranks="same"),
        "word": lambda: build(linear(), data_on_ranks="all"),
        "moved": lambda: build(moved),
        "decay": lambda: build(linear(), weight_decay=0.1 * rank),
        "reduction": lambda: build(linear(), nn.CrossEntropyLoss(reduction=["sum", "mean"][rank])),
        "denominator": lambda: build(linear(), lambda o, t: o.square().mean()),
        "whole loss": lambda: build(
            linear(), lambda o, t: o.square().mean().sqrt(), denominator=lambda o, t: len(t)
        ),
        "outside": lambda: build(
            regularized,
            lambda o, t: o.square().mean() + regularized[1].weight.square().sum(),
            denominator=lambda o, t: len(t),
        ),
        "seed": lambda: hesspipe.density(objective, num_steps=2, seed=rank),
        "spectrum": lambda: hesspipe.spectrum(objective),
        "matrix": lambda: hesspipe.hessian_matrix(objective),
        "operator": lambda: hesspipe.HessianOperator(objective),
        "objective": lambda: hesspipe.Objective(
            linear(), nn.CrossEntropyLoss(), (inputs, targets)
        ),
        "data": lambda: build(linear(), data=[]),
    }  # fmt: skip
    found = {name: raised(case) for name, case in cases.items()}
    coupled = build(sharded(Centered(4, 3).double(), size))
    return found | {"coupling": coupled.coupling}


def search(rank: int, size: int, state: str, ends_at: int | None) -> Any:
    """Search, and end this process between its second state and that of the other ones."""
    objective = problem(rank, size)
    if ends_at is not None:
        saves: list[int] = []
        save = RankState.save

        def save_or_end(self: RankState) -> None:
            saves.append(1)
            if len(saves) == ends_at and rank == size - 1:
                os._exit(1)
            save(self)

        RankState.save = save_or_end  # type: ignore[method-assign]
    before = count_products(objective)
    found = hesspipe.eigenpairs(objective, state=state, **SEARCH)
    files = sorted(path.name for path in Path(state).parent.glob("*.safetensors"))
    return found.eigenvalues, found.num_products, before(), files


def ended_search(rank: int, size: int, state: str, ends_at: int) -> Any:
    return raised(lambda: search(rank, size, state, ends_at))


def count_products(objective: Any) -> Callable[[], int]:
    made: list[int] = []
    multiply = ShardedProducts.multiply

    def counted(self: ShardedProducts, vector: Tensor) -> Tensor:
        made.append(1)
        return multiply(self, vector)

    ShardedProducts.multiply = counted  # type: ignore[method-assign]
    return lambda: len(made)


def search_or_refuse(rank: int, size: int, state: str) -> Any:
    return raised(lambda: search(rank, size, state, None))


def everything(rank: int, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {"methods": methods(rank, size)}
    if size > 1:
        found["losses"] = every_loss(rank, size)
    if size != 3:
        found["models"] = every_model(rank, size)
    if size == 2:
        found["refusals"] = refusals(rank, size)
        found["derivatives"] = derivatives(rank, size)
        found["different"] = different(rank, size)
    return copy.copy(found)
