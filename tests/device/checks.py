"""What has to hold on a GPU: each check takes a device, and needs torch and hesspipe only.

The references are computed on the CPU in float64, by loops of double backward over the loss. The
tests marked `gpu` call these functions, and so does benchmarks/gpu, where pytest is not installed.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import hesspipe
from hesspipe import hardware

EPS = torch.finfo(torch.float64).eps
OPERATORS = {
    "hessian": hesspipe.HessianOperator,
    "ggn": hesspipe.GGNOperator,
    "residual": hesspipe.ResidualOperator,
}
MATRICES = {
    "hessian": hesspipe.hessian_matrix,
    "ggn": hesspipe.ggn_matrix,
    "residual": hesspipe.residual_matrix,
}
CHECKS: dict[str, Callable[[torch.device], None]] = {}


def check(function: Callable[[torch.device], None]) -> Callable[[torch.device], None]:
    """List a check under its name."""
    CHECKS[function.__name__] = function
    return function


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels(number: int, classes: int) -> Tensor:
    """Class labels, drawn on the CPU."""
    return torch.randint(classes, (number,), generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """One block of a transformer, whose weights are used at several positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (N, 3) of tokens (N, T)."""
        hidden = self.embedding(tokens)
        hidden = self.norm(hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0])
        return self.head(hidden.mean(1))


def _mlp(activation: type[nn.Module]) -> Callable[[], tuple[nn.Module, Tensor]]:
    def build() -> tuple[nn.Module, Tensor]:
        layers = nn.Linear(4, 5), activation(), nn.Linear(5, 4), activation(), nn.Linear(4, 3)
        return nn.Sequential(*layers), normal(8, 4)

    return build


def _convnet() -> tuple[nn.Module, Tensor]:
    layers = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers), normal(8, 1, 6, 6)


def _batch_norm() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, 3)).double()
    model(normal(20, 4, seed=9))
    return model.eval(), normal(8, 4)


def _attention() -> tuple[nn.Module, Tensor]:
    return Attention().eval(), labels(16, 5).view(8, 2)


NETWORKS = {
    "relu": _mlp(nn.ReLU),
    "tanh": _mlp(nn.Tanh),
    "convnet": _convnet,
    "batch norm": _batch_norm,
    "attention": _attention,
}
LOSSES: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "cross-entropy": (nn.CrossEntropyLoss(), labels(8, 3)),
    "weighted": (nn.CrossEntropyLoss(weight=normal(3, seed=3).exp()), labels(8, 3)),
    "square": (nn.MSELoss(), normal(8, 3, seed=5)),
}


def case(network: str) -> tuple[nn.Module, Tensor]:
    """A network with fixed parameters in general position, and its inputs; on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = NETWORKS[network]()
    model = model.double()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(0.6 * normal(*parameter.shape, seed=100 + number))
    return model, inputs


def objective_on(
    device: torch.device, network: str = "relu", loss: str = "cross-entropy", **options: Any
) -> hesspipe.Objective:
    """The objective on a device. The data stay on the CPU, from where they are copied."""
    model, inputs = case(network)
    loss_fn, targets = LOSSES[loss]
    options.setdefault("dtype", torch.float64)
    return hesspipe.Objective(
        model.to(device),
        copy.deepcopy(loss_fn).to(device) if isinstance(loss_fn, nn.Module) else loss_fn,
        [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])],
        **options,
    )


def reference(network: str, loss: str) -> dict[str, Tensor]:
    """H, G and R by loops of double backward, each from its own formula; on the CPU."""
    model, inputs = case(network)
    loss_fn, targets = LOSSES[loss]
    parameters = list(model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        outputs = model(inputs)
    leaf = outputs.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss_fn(leaf, targets), leaf, create_graph=True)
    jacobian, curvature = _rows(outputs.flatten(), parameters), _rows(slope.flatten(), [leaf])
    pulled = (slope.detach() * outputs).sum()
    return {
        "hessian": _rows(_gradient(loss_fn(outputs, targets), parameters), parameters),
        "ggn": jacobian.T @ curvature @ jacobian,
        "residual": _rows(_gradient(pulled, parameters), parameters),
    }


def _gradient(scalar: Tensor, points: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(scalar, points, create_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


def _rows(vector: Tensor, points: list[Tensor]) -> Tensor:
    size = sum(point.numel() for point in points)
    if not vector.requires_grad:
        return vector.new_zeros(len(vector), size)
    rows = [
        torch.autograd.grad(entry, points, retain_graph=True, materialize_grads=True)
        for entry in vector
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def assert_close(found: Tensor, expected: Tensor, what: str, eps: float = EPS) -> None:
    """Equal up to 200 roundings of the norm, entry by entry."""
    error = float((found.detach().cpu().double() - expected).abs().max())
    allowed = 200 * eps * float(expected.norm())
    assert error <= allowed, f"{what} differs by {error:.2e}, allowed {allowed:.2e}"


def assert_raises(kind: type[BaseException], text: str, call: Callable[[], Any]) -> None:
    """`call` raises an error of a kind, whose message has the text."""
    try:
        call()
    except kind as error:
        message = str(error)
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
    assert text in message, f"{text!r} is not in {message}"


def unless_refused(call: Callable[[], Any]) -> Any:
    """What `call` returns; None if it says that the method does not apply to the network."""
    try:
        return call()
    except ValueError as error:
        if "use method=" not in str(error) and "method 'jacobians'" not in str(error):
            raise
        return None


@check
def products_are_those_of_double_backward(device: torch.device) -> None:
    """H v, G v and R v of every network and loss, one vector and several at once."""
    pairs = [(network, "cross-entropy") for network in NETWORKS]
    for network, loss in [*pairs, ("tanh", "weighted"), ("tanh", "square")]:
        expected = reference(network, loss)
        objective = objective_on(device, network, loss)
        vectors = normal(objective.num_parameters, 3, seed=7)
        for name, operator in OPERATORS.items():
            product, what = operator(objective), f"{name} of {network}, {loss}"
            found = product @ vectors.to(device)
            assert found.device.type == device.type, what
            assert_close(found, expected[name] @ vectors, what)
            assert_close(product @ vectors[:, 0].to(device), expected[name] @ vectors[:, 0], what)


@check
def products_in_float32_are_rounded_to_float32(device: torch.device) -> None:
    """Whatever the caller allows: TF32, which has 10 bits, is not used."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        for network in ("tanh", "convnet"):
            objective = objective_on(device, network, dtype=torch.float32)
            vector = normal(objective.num_parameters, seed=7).float()
            for name, operator in OPERATORS.items():
                expected = reference(network, "cross-entropy")[name] @ vector.double()
                found = operator(objective) @ vector.to(device)
                assert_close(
                    found, expected, f"{name} of {network}", torch.finfo(torch.float32).eps
                )
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@check
def matrices_by_every_method_are_those_of_double_backward(device: torch.device) -> None:
    """Layers, convolutions and columns, where they apply."""
    num_found = 0
    for network, names in (("relu", MATRICES), ("convnet", ["residual"])):
        expected = reference(network, "cross-entropy")
        objective = objective_on(device, network)
        for name in names:
            matrix = MATRICES[name]
            for method in ("layers", "convolutions", "columns"):
                found = unless_refused(partial(matrix, objective, method))
                if found is None:
                    continue
                num_found += 1
                assert_close(found, expected[name], f"{name} of {network} by {method}")
    assert num_found == 11, num_found


@check
def spectra_by_every_method_are_those_of_the_matrix(device: torch.device) -> None:
    """All eigenvalues, and their signs."""
    methods = set()
    for network, names in (("relu", OPERATORS), ("convnet", ["ggn"])):
        expected = reference(network, "cross-entropy")
        objective = objective_on(device, network)
        for name in names:
            right = torch.linalg.eigvalsh(expected[name])
            for method in ("auto", "factored", "jacobians", "layers", "convolutions", "columns"):
                compute = partial(hesspipe.spectrum, objective, name, method=method)
                found = unless_refused(compute)
                if found is None:
                    continue
                methods.add(found.method)
                assert found.eigenvalues.device.type == "cpu"
                assert_close(found.eigenvalues, right, f"{name} of {network} by {found.method}")
    assert methods >= {"factored", "jacobians", "layers", "convolutions", "columns"}, methods


@check
def spectra_of_layers_are_those_of_their_blocks(device: torch.device) -> None:
    """Each layer's block of G, which operators and the matrix have in common."""
    expected, start = reference("relu", "cross-entropy")["ggn"], 0
    found = hesspipe.layer_spectra(objective_on(device), matrix="ggn")
    for size, part in zip((25, 24, 15), found.values(), strict=True):
        block = expected[start : start + size, start : start + size]
        assert_close(part.eigenvalues, torch.linalg.eigvalsh(block), "a block")
        start += size


@check
def large_matrices_are_solved_on_the_cpu(device: torch.device) -> None:
    """Beyond the rows that solvers of GPUs take: the limit is lowered for this."""
    objective, solved = objective_on(device), []
    eigvalsh = torch.linalg.eigvalsh

    def recorded(values: Tensor) -> Tensor:
        solved.append(values.device.type)
        return eigvalsh(values)

    right = torch.linalg.eigvalsh(reference("relu", "cross-entropy")["hessian"])
    with (
        patch("hesspipe.linalg.spectrum.MOST_ROWS_ON_A_GPU", 10),
        patch("torch.linalg.eigvalsh", recorded),
    ):
        found = hesspipe.spectrum(objective, "hessian", method="columns")
    assert solved == ["cpu"], solved
    assert_close(found.eigenvalues, right, "a spectrum")


@check
def eigenpairs_are_those_of_the_matrix(device: torch.device) -> None:
    """Both ends, with true residuals; eigenvectors are on the device."""
    matrix = reference("tanh", "cross-entropy")["hessian"]
    values = torch.linalg.eigvalsh(matrix)
    found = hesspipe.eigenpairs(
        objective_on(device, "tanh"), "hessian", num_smallest=2, num_largest=3, tolerance=1e-10
    )
    assert found.eigenvectors.device.type == device.type
    assert_close(found.eigenvalues, torch.cat([values[:2], values[-3:]]), "eigenvalues", 1e-12)
    vectors = found.eigenvectors.cpu()
    residuals = (matrix @ vectors - vectors * found.eigenvalues.cpu()).norm(dim=0)
    assert float(residuals.max()) <= 1e-9 * float(values.abs().max())


@check
def searches_resume_from_their_state(device: torch.device) -> None:
    """A search that was stopped goes on, and finds what an undisturbed one finds."""
    options: dict[str, Any] = {"num_largest": 3, "num_smallest": 1, "tolerance": 1e-10}
    options["basis_size"] = 12
    whole = hesspipe.eigenpairs(objective_on(device, "tanh"), "hessian", **options)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state.safetensors")
        stopped = whole.num_products // 2

        def search(most: int) -> hesspipe.Eigenpairs:
            objective = objective_on(device, "tanh")
            return hesspipe.eigenpairs(
                objective, "hessian", state=state, max_products=most, **options
            )

        assert_raises(hesspipe.NotConvergedError, "", lambda: search(stopped))
        assert state.is_file()
        found = search(1000)
    assert_close(found.eigenvalues, whole.eigenvalues.cpu().double(), "eigenvalues", 1e-12)


@check
def densities_are_those_of_the_cpu(device: torch.device) -> None:
    """Start vectors are drawn on the CPU, so that every device has the same nodes and weights."""
    there, here = (
        hesspipe.density(objective_on(place, "tanh"), "ggn", num_probes=2, num_steps=6)
        for place in (device, torch.device("cpu"))
    )
    assert_close(there.nodes, here.nodes, "nodes", 1e-10)
    assert_close(there.weights, here.weights, "weights", 1e-10)


@check
def norms_are_those_of_the_cpu(device: torch.device) -> None:
    """Trace and Frobenius norm, with their standard errors."""
    there, here = (
        hesspipe.estimate_norms(objective_on(place, "tanh"), "hessian", num_products=24)
        for place in (device, torch.device("cpu"))
    )
    for name in ("trace", "squares"):
        one, other = getattr(there, name).value, getattr(here, name).value
        assert math.isclose(one, other, rel_tol=1e-10), f"{name}: {one} and {other}"


@check
def directions_of_classes_are_those_of_the_cpu(device: torch.device) -> None:
    """Spans of class-mean gradients, and how much of an eigenvector lies in them."""
    from hesspipe.curvature.class_means import (
        class_mean_gradients,
        direction_groups,
        squared_overlaps,
    )

    found = []
    for place in (device, torch.device("cpu")):
        objective = objective_on(place, "tanh")
        pairs = hesspipe.eigenpairs(objective, num_largest=2)
        groups = direction_groups(class_mean_gradients(objective))
        overlaps = [squared_overlaps(pairs.eigenvectors, group)[0] for group in groups.values()]
        found.append(torch.stack(overlaps).cpu())
    assert_close(found[0], found[1], "overlaps", 1e-8)


@check
def results_are_saved_and_read(device: torch.device) -> None:
    """Eigenvectors leave the device on the way to the file."""
    found = hesspipe.eigenpairs(objective_on(device), "ggn", num_largest=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.parquet")
        hesspipe.save(found, path)
        assert_close(hesspipe.load(path).eigenvalues, found.eigenvalues.cpu(), "eigenvalues")


@check
def memory_is_that_of_the_device(device: torch.device) -> None:
    """What is free there, and refusals of what is more, before anything is allocated."""
    free = hardware.available_bytes(device)
    assert free > 0
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        assert free <= total
    objective = objective_on(device)
    with patch("hesspipe.hardware.available_bytes", _little_there(device)):
        for call in (
            lambda: hesspipe.hessian_matrix(objective),
            lambda: hesspipe.spectrum(objective, method="columns"),
            lambda: hesspipe.eigenpairs(objective, num_largest=2),
            lambda: hesspipe.density(objective, num_steps=10),
        ):
            assert_raises(hesspipe.TooLargeError, "GiB are available", call)


def _little_there(device: torch.device) -> Callable[..., int]:
    """Free memory: enough on the CPU, and 1,000 bytes on the device."""

    def available(asked: torch.device | None = None) -> int:
        return 2**40 if (asked or torch.device("cpu")).type != device.type else 1000

    return available


@check
def objectives_of_streams_and_groups_are_right(device: torch.device) -> None:
    """Data that are read again for every product, and a part of the parameters."""
    model, inputs = case("relu")
    loss_fn, targets = LOSSES["cross-entropy"]
    expected = reference("relu", "cross-entropy")["hessian"]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, targets), batch_size=3
    )
    vector = normal(len(expected), seed=7)
    streamed = hesspipe.Objective(model.to(device), loss_fn, loader, stream=True)
    found = hesspipe.HessianOperator(streamed) @ vector.to(device)
    assert_close(found, expected @ vector, "streamed")
    part = objective_on(device, parameters=["0.*"])
    block = hesspipe.DiagonalBlock(hesspipe.HessianOperator(part), part.is_varied)
    found = block @ vector[:25].to(device)
    assert_close(found, expected[:25, :25] @ vector[:25], "a block")


@contextmanager
def _in_folder() -> Iterator[None]:
    """Unfinished states lie below the working folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


class KilledError(BaseException):
    """Stands for a kill, which no handler of errors sees."""


@check
def trainings_resume_with_equal_bits(device: torch.device) -> None:
    """A training that is stopped between two records ends in the same checkpoints and history."""
    from hesspipe.data.dataset import Dataset
    from hesspipe.networks.training import Schedule, train

    inputs, targets = normal(30, 1, 6, 6), labels(30, 3)
    data = Dataset(inputs[:20], targets[:20], inputs[20:], targets[20:], 3)
    data = data.to(torch.float32, device)
    schedule = Schedule(0.1, 24, 3, record_every=4, checkpoint_every=8)

    def run(name: str, calls: float = math.inf) -> Any:
        left = [calls]

        def loss_fn(outputs: Tensor, labels: Tensor) -> Tensor:
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return nn.functional.cross_entropy(outputs, labels)

        network = case("convnet")[0].float().to(device)
        settings = {"seed": 0, "path_to_state": name, "loss_fn": loss_fn, "progress": False}
        return train(network, data, schedule, **settings)

    with _in_folder():
        whole = run("whole")
        for calls in (11, 23):
            assert_raises(KilledError, "", lambda calls=calls: run("stopped", calls))  # type: ignore[misc]
        assert run("stopped").equals(whole)
        for path in Path("whole").glob("*.safetensors"):
            assert path.read_bytes() == Path("stopped", path.name).read_bytes(), path.name


@check
def monitors_record_on_the_device(device: torch.device) -> None:
    """The largest eigenvalues of H through a training loop are those of its matrix."""
    model, inputs = case("tanh")
    loss_fn, targets = LOSSES["cross-entropy"]
    objective = hesspipe.Objective(model.to(device), loss_fn, (inputs, targets))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = hesspipe.Monitor(
        objective, model, optimizer, every=1, trace_products=6, on_error="raise"
    )
    rights = []
    for number in range(1, 4):
        optimizer.zero_grad()
        loss_fn(model(inputs.to(device)), targets.to(device)).backward()
        optimizer.step()
        at_point = hesspipe.Objective(model, loss_fn, (inputs, targets))
        rights.append(float(hesspipe.spectrum(at_point, method="columns").eigenvalues[-1]))
        monitor.step(number)
    largest = monitor.table.query("end == 'largest'")
    for found, right in zip(largest["eigenvalue"], rights, strict=True):
        assert math.isclose(found, right, rel_tol=1e-2), (found, right)
