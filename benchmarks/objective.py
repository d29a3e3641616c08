"""Measure what building an Objective takes, in products with the Hessian and vectors of length P.

    python benchmarks/objective.py {conv,mlp,wide} [float32]

Processor time and the resident memory of one process, so that other processes matter little.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import hesspipe


def problem(name: str) -> tuple[nn.Module, torch.Tensor, int]:
    """Make a network, inputs and the size of a batch."""
    torch.manual_seed(0)
    if name == "conv":
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        dense = [nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10)]
        return nn.Sequential(*layers, *dense), torch.randn(256, 3, 32, 32), 64
    widths, num_data, size = {
        "mlp": ([784, 1000, 200, 10], 1000, 250),
        "wide": ([3000, 3000, 1000, 10], 24, 8),
    }[name]
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), torch.randn(num_data, widths[0]), size


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(compute: Callable[[], Any]) -> tuple[Any, float, int]:
    """Return a result, its processor time and the growth of the memory at its peak."""
    before, peaks, is_over = resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.002):
            peaks[0] = max(peaks[0], resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    result = compute()
    seconds = time.process_time() - start
    is_over.set()
    watcher.join()
    return result, seconds, peaks[0] - before


def main(name: str, dtype: torch.dtype) -> None:
    """Build an objective and multiply with its Hessian."""
    torch.set_num_threads(1)
    model, inputs, size = problem(name)
    targets = torch.randint(10, (len(inputs),))
    data = list(zip(inputs.split(size), targets.split(size), strict=True))
    loss = nn.CrossEntropyLoss()
    nn.Linear(3, 3)(torch.ones(1, 3)).sum().backward()  # starts torch's threads
    objective, building, peak = measured(lambda: hesspipe.Objective(model, loss, data, dtype=dtype))
    operator = hesspipe.HessianOperator(objective)
    vector = torch.randn(objective.num_parameters, dtype=dtype)
    _, first, peak_of_first = measured(lambda: operator @ vector)
    later = min(measured(lambda: operator @ vector)[1] for _ in range(3))
    unit = objective.num_parameters * dtype.itemsize
    print(
        f"{name}, {dtype}, P = {objective.num_parameters:,}: building {building:.2f} s = "
        f"{building / first:.1f} first products = {building / later:.1f} later ones; peak "
        f"{peak / unit:.1f} vectors, of the first product {peak_of_first / unit:.1f}"
    )


if __name__ == "__main__":
    main(sys.argv[1], getattr(torch, (sys.argv[2:] or ["float64"])[0]))
