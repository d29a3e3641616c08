"""Settings of torch, of the process and of a thread, under which everything is computed as before.

The references are computed without them.
"""

from __future__ import annotations

import ast
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import assert_close
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch_defaults import default_device, default_dtype

import hesspipe
from hesspipe.objective.kernels import twice_differentiable_kernels

CPU = torch.device("cpu")
# Compiling the formulas of forward mode.
IGNORED = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(8, 4, generator=GENERATOR)
LABELS = torch.randint(3, (8,), generator=GENERATOR)
RECORDS = [{"x": x, "y": y} for x, y in zip(INPUTS.split(5), LABELS.split(5), strict=True)]


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """The data, one sample at a time."""

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return INPUTS[index], LABELS[index]


def network(*more: nn.Module, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs), *more)


MODEL = network()
PROBABILITIES = network(nn.Sigmoid(), outputs=1)


def classifier(**options: Any) -> hesspipe.Objective:
    return hesspipe.Objective(MODEL, nn.CrossEntropyLoss(), (INPUTS, LABELS), **options)


def probabilities() -> hesspipe.Objective:
    targets = (LABELS > 0).to(INPUTS).unsqueeze(1)
    return hesspipe.Objective(PROBABILITIES, nn.BCELoss(), (INPUTS, targets))


def samples() -> hesspipe.Objective:
    return hesspipe.Objective(MODEL, nn.CrossEntropyLoss(), Samples())


def loader() -> hesspipe.Objective:
    draw = torch.Generator().manual_seed(0)
    data = DataLoader(Samples(), batch_size=5, generator=draw)
    return hesspipe.Objective(MODEL, nn.CrossEntropyLoss(), data, stream=True)


def whole_batches() -> hesspipe.Objective:
    return hesspipe.Objective.from_batches(
        MODEL,
        lambda outputs, batch: functional.cross_entropy(outputs, batch["y"]),
        RECORDS,
        outputs=lambda model, batch: model(batch["x"]),
        num_samples=lambda batch: len(batch["y"]),
        stream=True,
    )


def function() -> hesspipe.Objective:
    start = torch.tensor([1.0, 2.0, 3.0], device="cpu")
    return hesspipe.Objective.from_function(lambda theta: theta.pow(3).sum() + theta.prod(), start)


def product(objective: hesspipe.Objective) -> list[Tensor]:
    return [hesspipe.HessianOperator(objective) @ objective.theta]


def everything(objective: hesspipe.Objective) -> list[Tensor]:
    vector, operator = objective.theta, hesspipe.HessianOperator(objective)
    norms = hesspipe.estimate_norms(objective, num_products=6)
    return [
        hesspipe.spectrum(objective).eigenvalues,
        hesspipe.ggn_matrix(objective),
        hesspipe.residual_matrix(objective),
        torch.from_numpy(operator @ vector.numpy()),
        hesspipe.eigenpairs(operator, num_largest=2).eigenvalues,
        hesspipe.density(operator, num_probes=2, num_steps=5).nodes,
        vector.new_tensor([norms.trace.value, norms.frobenius_norm.value]),
    ]


PROBLEMS: dict[str, Callable[[], list[Tensor]]] = {
    "everything": lambda: everything(classifier()),
    "float32": lambda: product(classifier(dtype=torch.float32)),
    "probabilities": lambda: product(probabilities()),
    "whole batches": lambda: product(whole_batches()),
    "function": lambda: [hesspipe.hessian_matrix(function())],
    "samples": lambda: product(samples()),
    "loader": lambda: product(loader()),
}
# Of interest under some settings only: where data begin to be read, and where tensors are made.
DATA = ("samples", "loader")
MAKING = ("default device", "float64", "float16", "inference mode", "dispatch mode")


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def low_precision(*places: Any) -> Iterator[None]:
    """The interface of torch after which it refuses to read the older settings."""
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32"
        yield
        assert [place.fp32_precision for place in places] == ["tf32"] * len(places)
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


class DispatchMode(TorchDispatchMode):
    """Sees every operation, as profilers do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class FunctionMode(TorchFunctionMode):
    """Sees every function."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "deterministic": deterministic,
    "anomaly detection": lambda: torch.autograd.detect_anomaly(check_nan=True),
    "hooks": lambda: torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda t: t),
    "hooks disabled": lambda: torch.autograd.graph.disable_saved_tensors_hooks("none"),
    "one thread": lambda: torch.autograd.set_multithreading_enabled(False),
    "dispatch mode": DispatchMode,
    "function mode": FunctionMode,
    "precision of matrix products": lambda: low_precision(torch.backends.cuda.matmul),
    "precision of convolutions": lambda: low_precision(torch.backends.mkldnn.conv),
    "precision of all": lambda: low_precision(torch.backends.cudnn),
}


@pytest.fixture(scope="module")
def references() -> dict[str, list[Tensor]]:
    return {name: compute() for name, compute in PROBLEMS.items()}


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("setting", SETTINGS)
def test_results_are_the_same_under_a_setting_of_torch(
    setting: str, references: dict[str, list[Tensor]]
) -> None:
    for name, compute in PROBLEMS.items():
        if (name in DATA and "device" not in setting) or (
            name == "everything" and setting not in MAKING
        ):
            continue
        with SETTINGS[setting]():
            found = compute()
        for one, other in zip(found, references[name], strict=True):
            assert_close(one, other, factor=100)


def test_model_made_in_inference_mode_is_usable() -> None:
    with torch.inference_mode():
        model = network()
        found = hesspipe.hessian_matrix(
            hesspipe.Objective(model, nn.CrossEntropyLoss(), (INPUTS, LABELS))
        )
    assert_close(found, hesspipe.hessian_matrix(classifier()))


FLOATS = {"zeros", "ones", "empty", "full", "eye", "linspace", "rand", "randn", "tensor"}


def test_every_new_tensor_of_the_package_names_its_device_and_dtype() -> None:
    """Otherwise it is made where, and in what, the caller's program makes its own."""
    makers = {function.__name__ for function in _device_constructors()}
    wrong = []
    for path in Path(hesspipe.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, name = node.func.value, node.func.attr
            if not (isinstance(owner, ast.Name) and owner.id == "torch" and name in makers):
                continue
            given = {keyword.arg for keyword in node.keywords}
            if "device" not in given or (name in FLOATS and "dtype" not in given):
                wrong.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong


def global_settings() -> list[Any]:
    backends = torch.backends
    return [
        backends.mha.get_fastpath_enabled(),
        backends.cuda.flash_sdp_enabled(),
        backends.cuda.mem_efficient_sdp_enabled(),
        backends.cuda.cudnn_sdp_enabled(),
        backends.cudnn.deterministic,
        backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        checkpoint.CheckpointFunction,
        checkpoint._checkpoint_without_reentrant_generator,
    ]


def test_settings_of_the_process_are_restored_by_the_last_thread_that_needs_them() -> None:
    before, inside = global_settings(), threading.Event()
    first_is_out, errors = threading.Event(), []

    def late() -> None:
        with twice_differentiable_kernels(CPU):
            inside.set()
            first_is_out.wait(10)
            if checkpoint.CheckpointFunction is before[-2] or global_settings()[1]:
                errors.append("restored while they were needed")

    thread = threading.Thread(target=late)
    with twice_differentiable_kernels(CPU):
        thread.start()
        assert inside.wait(10)
    first_is_out.set()
    thread.join()
    assert not errors
    assert global_settings() == before


def test_objectives_are_built_in_threads_at_once(references: dict[str, list[Tensor]]) -> None:
    before, found = global_settings(), {}

    def work(number: int) -> None:
        name = ("function", "probabilities")[number % 2]
        found[number] = name, PROBLEMS[name]()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    for name, values in found.values():
        for one, other in zip(values, references[name], strict=True):
            assert_close(one, other)
    assert global_settings() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_objective_is_built_in_a_forked_child(references: dict[str, list[Tensor]]) -> None:
    child = os.fork()
    if not child:
        try:
            found = PROBLEMS["probabilities"]()
            is_same = all(map(torch.allclose, found, references["probabilities"]))
        finally:
            os._exit(0 if is_same else 1)
    assert os.waitpid(child, 0)[1] == 0


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "grad": lambda product, vector: torch.func.grad(lambda v: v @ product(v))(vector),
    "jvp": lambda product, vector: torch.func.jvp(product, (vector,), (vector,)),
    "vjp": torch.func.vjp,
    "vmap": lambda product, vector: torch.vmap(product)(torch.stack([vector, vector])),
}


@IGNORED
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_products_are_refused_inside_a_transform_of_torch(transform: str) -> None:
    """A product that returned constants would make the transform return another derivative."""
    objective = classifier()
    operator = hesspipe.HessianOperator(objective)
    with pytest.raises(ValueError, match="outside of transforms"):
        TRANSFORMS[transform](operator.__matmul__, objective.theta)


@pytest.mark.parametrize("compute", [classifier, lambda: hesspipe.eigenpairs(OBJECTIVE)])
def test_other_functions_are_refused_inside_a_transform_of_torch(
    compute: Callable[[], Any],
) -> None:
    with pytest.raises(ValueError, match="got a call inside vmap"):
        torch.vmap(lambda x: x + bool(compute()))(torch.zeros(2))


OBJECTIVE = classifier()


@IGNORED
def test_dual_vectors_are_refused() -> None:
    operator = hesspipe.HessianOperator(OBJECTIVE)
    with (
        forward_ad.dual_level(),
        pytest.raises(ValueError, match="vectors must have no tangent"),
    ):
        operator @ forward_ad.make_dual(OBJECTIVE.theta, OBJECTIVE.theta)


@IGNORED
@pytest.mark.parametrize("build", [classifier, probabilities])
def test_loss_may_be_transformed(build: Callable[[], hesspipe.Objective]) -> None:
    objective = build()
    expected = hesspipe.HessianOperator(objective) @ objective.theta
    found = torch.func.hessian(objective.loss)(objective.theta) @ objective.theta
    assert_close(found, expected, factor=1e4)  # the rounding of torch's binary_cross_entropy
