"""Measure what building an Objective takes, in products with the Hessian and vectors of length P.

    python benchmarks/objective.py [--repeats 3] [--only mlp conv ...] [--dtype float32]

Every network has a process of its own, with one thread. Seconds are of the processor, so that
other processes matter little, and the least of the repeats. The peak is that of the bytes of all
tensors that exist beside the model and the data, counted at every operation in a build of its own;
with few samples in a batch it is that of vectors of length P. `checks` are the shares of the parts
of building, the dearest first.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import pstats
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import hesspipe

_CLASSES = 10
# Widths, number of samples and size of a batch.
_DENSE = {
    "small": ([20, 30, 10], 1000, 250),
    "mlp": ([784, 1000, 200, 10], 1000, 250),
    "mlp-one-batch": ([784, 1000, 200, 10], 1000, 1000),
    "mlp-many-samples": ([784, 100, 10], 20000, 500),
    "wide": ([3000, 3000, 1000, 10], 24, 8),
    "wide-one-batch": ([3000, 3000, 1000, 10], 8, 8),
    "three-layers": ([500, 700, 480, 10], 8, 8),
}
NAMES = (*_DENSE, "conv", "conv-one-batch", "transformer", "transformer-few-samples")


def dense(widths: list[int]) -> nn.Module:
    """Make a network of Linear layers."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional() -> nn.Module:
    """Make a network of two convolutions and two Linear layers."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10))


class Transformer(nn.Module):
    """Four layers on 32 of 500 words, with one class for each sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(500, 128)
        layer = nn.TransformerEncoderLayer(
            128, 4, 512, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.classes = nn.Linear(128, _CLASSES)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return one row of logits per sequence."""
        found: torch.Tensor = self.classes(self.layers(self.words(words)).mean(1))
        return found


def problem(name: str) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Make a network and batches of inputs and labels."""
    torch.manual_seed(0)
    if name in _DENSE:
        widths, num_data, size = _DENSE[name]
        model, inputs = dense(widths), torch.randn(num_data, widths[0])
    elif name.startswith("conv"):
        size = 256 if name.endswith("one-batch") else 64
        model, inputs = convolutional(), torch.randn(256, 3, 32, 32)
    else:
        num_data, size = (4, 4) if name.endswith("few-samples") else (64, 16)
        model, inputs = Transformer(), torch.randint(500, (num_data, 32))
    targets = torch.randint(_CLASSES, (len(inputs),))
    return model, list(zip(inputs.split(size), targets.split(size), strict=True))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they exist; not of some others.

    An operation may return a view of a parameter of the caller's, or of the data.
    """

    def __init__(self, others: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._counted = 0
        self._others = {tensor.untyped_storage()._cdata for tensor in others}
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self._add(part)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._storages.get(key)
        if key in self._others or (known is not None and not known[0].expired()):
            return
        self._counted += storage.nbytes() - (known[1] if known else 0)
        self._storages[key] = StorageWeakRef(storage), storage.nbytes()
        if self._counted > self.peak:  # unless some of them are gone
            self._storages = {k: v for k, v in self._storages.items() if not v[0].expired()}
            self._counted = sum(num_bytes for _, num_bytes in self._storages.values())
            self.peak = max(self.peak, self._counted)


def seconds_of(compute: Callable[[], Any]) -> float:
    """Return the processor time of a computation."""
    start = time.process_time()
    compute()
    return time.process_time() - start


def peak_of(compute: Callable[[], Any], others: list[torch.Tensor]) -> int:
    """Return the largest number of bytes that exist in tensors made by a computation."""
    with LiveBytes(others) as live:
        compute()
    return live.peak


def shares(build: Callable[[], Any]) -> str:
    """Name the functions of the checks in which building spends its time."""
    profile = cProfile.Profile()
    profile.runcall(build)
    found = [
        (numbers[3], function)
        for (file, _, function), numbers in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
        if "hesspipe/objective" in file and not function.startswith("<")
    ]
    total = max(seconds for seconds, _ in found)
    return ", ".join(
        f"{function} {seconds / total:.0%}"
        for seconds, function in sorted(found, reverse=True)[:25]
        if seconds < 0.95 * total
    )


def measure(name: str, dtype: torch.dtype, repeats: int, with_checks: bool) -> None:
    """Build an objective and multiply with its Hessian."""
    torch.set_num_threads(1)
    model, data = problem(name)

    def build() -> hesspipe.Objective:
        return hesspipe.Objective(model, nn.CrossEntropyLoss(), data, dtype=dtype)

    objective = build()  # starts torch's threads, and imports what it needs
    building = min(seconds_of(build) for _ in range(repeats))
    vector = torch.randn(objective.num_parameters, dtype=dtype)
    first = min(
        seconds_of(lambda: hesspipe.HessianOperator(objective) @ vector) for _ in range(repeats)
    )
    operator = hesspipe.HessianOperator(objective)
    later = min(seconds_of(partial(operator.__matmul__, vector)) for _ in range(1 + repeats))
    del operator
    unit = objective.num_parameters * dtype.itemsize
    others = [*model.parameters(), *itertools.chain.from_iterable(data)]
    peaks = [
        peak_of(build, others),
        peak_of(lambda: hesspipe.HessianOperator(objective) @ vector, others),
    ]
    num_samples = sum(len(inputs) for inputs, _ in data)
    print(
        f"| {name} | {objective.num_parameters:,} | {num_samples:,} in {len(data)} | "
        f"{building:.3f} | {building / first:.1f} | {building / later:.1f} | "
        f"{peaks[0] / unit:.1f} | {peaks[1] / unit:.1f} |",
        flush=True,
    )
    if with_checks:
        print(f"  checks: {shares(build)}", flush=True)


def main() -> None:
    """Measure each network in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checks", action="store_true")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    if options.here:
        measure(options.only[0], getattr(torch, options.dtype), options.repeats, options.checks)
        return
    print("| network | P | samples, batches | seconds | first products | later products | peak of")
    print("building, vectors | peak of a first product, vectors |")
    for name in options.only:
        arguments = ["--here", "--only", name, "--dtype", options.dtype]
        arguments += ["--repeats", str(options.repeats), *(["--checks"] * options.checks)]
        subprocess.run([sys.executable, __file__, *arguments], check=True)


if __name__ == "__main__":
    main()
