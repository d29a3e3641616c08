"""Time products, top eigenvalues and densities of ResNet-18, ViT and GPT-2 beside two libraries.

The libraries take turns in one process (A B C A B C), in the same precision, and every round is
timed apart: the ratios come with their smallest and largest value over the rounds. Products are
compared with plain double backward, which uses no library. A library that fails is shown with its
message. Times are CPU times of the process on one thread, which other jobs disturb the least.

It needs torchvision and transformers, of the extra `[zoo]`, beside the libraries of
`envs/benchmarks.txt`.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten

import curvlinops
import numpy as np
import pyhessian
import torch
from pyhessian.utils import hessian_vector_product
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import hesspipe

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from torchvision_operators import declare_operators

_NUM_SAMPLES = 8
_NUM_PAIRS, _TOLERANCE = 5, 1e-4
_STEPS = 20
_PACKAGES = (
    "curvlinops-for-pytorch", "pyhessian", "torchvision", "transformers",
)  # fmt: skip
_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_TASKS = {
    "hessian": "products per second with H",
    "ggn": "products per second with G",
    "eigenpairs": f"seconds to the {_NUM_PAIRS} largest eigenpairs of H, to {_TOLERANCE:g}",
    "density": f"seconds to a density of H, one probe of {_STEPS} steps",
}
_NAMES = ("hesspipe", "curvlinops", "PyHessian")
_NETWORKS = ("GPT-2", "ViT", "ResNet-18")

_REMARKS = [
    "- hesspipe and PyHessian keep the graph of the gradient of a single batch, curvlinops builds "
    "one for every product. PyHessian has no G, and its density needs `torch.eig`, which torch "
    "has removed.",
    "- Products of hesspipe and PyHessian agree with plain double backward up to rounding for all "
    "networks, and so do those of curvlinops with G and, for ResNet-18, with H. For GPT-2 and ViT "
    "its products with H are off by the errors shown, in float64 as in float32. The cause is in "
    "torch 2.13: curvlinops takes `torch.func.jvp` of `torch.func.jacrev`, which is wrong for a "
    "network with LayerNorm, while `jvp` of `torch.func.grad`, double backward and finite "
    "differences of the gradient agree for both networks. Its eigenpairs of H for these two "
    "are those of the wrong matrix.",
    "- curvlinops' density is computed without reorthogonalization, and hesspipe's with it. That "
    "of hesspipe takes 20 products, and that of curvlinops first takes others to find the ends of "
    "the spectrum.",
    "- PyHessian's eigenpairs come from power iteration, of at most 100 products each, and are "
    "those of largest magnitude.",
    "- In evaluation mode torch fuses the attention of ViT, which curvlinops cannot "
    "differentiate; hesspipe disables that.",
]

Data = tuple[Tensor, Tensor]
Contestants = dict[str, Callable[[], object]]


class Logits(nn.Module):
    """A language model that returns the logits of the last token as a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Evaluate the logits, (n, vocabulary)."""
        logits: Tensor = self.model(tokens).logits[:, -1]
        return logits


def make_problem(name: str, dtype: torch.dtype) -> tuple[nn.Module, Data]:
    """A network in evaluation mode, and random data."""
    declare_operators()  # first: transformers imports torchvision, too
    models = importlib.import_module("torchvision.models")
    torch.manual_seed(0)
    targets = torch.randint(10, (_NUM_SAMPLES,))
    if name == "GPT-2":
        transformers = importlib.import_module("transformers")
        config = transformers.GPT2Config(
            vocab_size=100, n_positions=32, n_embd=64, n_layer=2, n_head=4,
            attn_implementation="eager",
        )  # fmt: skip
        model: nn.Module = Logits(transformers.GPT2LMHeadModel(config))
        inputs = torch.randint(100, (_NUM_SAMPLES, 32))
    else:
        if name == "ResNet-18":
            model = models.resnet18(num_classes=10)
        else:
            model = models.VisionTransformer(
                image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64,
                mlp_dim=128, num_classes=10,
            )  # fmt: skip
            nn.init.normal_(model.heads.head.weight, std=0.1)  # which torchvision sets to zero
        inputs = torch.randn(_NUM_SAMPLES, 3, 32, 32).to(dtype)
    return model.to(dtype).eval(), (inputs, targets)


def plain_product(model: nn.Module, data: Data, vector: Tensor, matrix: str) -> Tensor:
    """H v, or G v as J^T (S (J v)), by plain double backward of torch."""
    parameters = list(model.parameters())
    inputs, targets = data
    outputs = model(inputs)

    def pull(value: Tensor, weights: Tensor | None, keep: bool) -> Tensor:
        parts = torch.autograd.grad(
            value, parameters, weights, create_graph=keep, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in parts])

    if matrix == "hessian":
        loss = nn.functional.cross_entropy(outputs, targets)
        return pull((pull(loss, None, True) * vector).sum(), None, False)
    pulled = torch.zeros_like(outputs, requires_grad=True)
    (moved,) = torch.autograd.grad((pull(outputs, pulled, True) * vector).sum(), pulled)
    leaf = outputs.detach().requires_grad_()
    loss = nn.functional.cross_entropy(leaf, targets)
    (slopes,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (curved,) = torch.autograd.grad(slopes, leaf, moved)
    return pull(outputs, curved, False)


def operators(model: nn.Module, data: Data, matrix: str) -> dict[str, Callable[[], object]]:
    """The contestants' operators, as a user builds them, later."""
    loss_fn, parameters = nn.CrossEntropyLoss(), list(model.parameters())
    kind = "HessianLinearOperator" if matrix == "hessian" else "GGNLinearOperator"
    found: dict[str, Callable[[], object]] = {
        "hesspipe": lambda: _own_operator(model, data, matrix),
        "curvlinops": lambda: getattr(curvlinops, kind)(model, loss_fn, parameters, [data]),
    }
    if matrix == "hessian":
        # Copied: the library leaves the gradient in the model.
        found["PyHessian"] = lambda: pyhessian.hessian(
            copy.deepcopy(model), loss_fn, data=data, cuda=False
        )
    return found


def _own_operator(model: nn.Module, data: Data, matrix: str) -> object:
    dtype = next(model.parameters()).dtype
    objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), data, dtype=dtype)
    kind = hesspipe.HessianOperator if matrix == "hessian" else hesspipe.GGNOperator
    return kind(objective)


def multiply(operator: object, vector: Tensor) -> Tensor:
    """One product, by whichever interface."""
    if not isinstance(operator, pyhessian.hessian):
        product: Tensor = operator @ vector  # type: ignore[operator]  # one class per library
        return product
    parts = vector.split([parameter.numel() for parameter in operator.params])
    parts = [part.view_as(p) for part, p in zip(parts, operator.params, strict=True)]
    products = hessian_vector_product(operator.gradsH, operator.params, parts)
    return torch.cat([part.flatten() for part in products])


def time_in_turns(
    contestants: Contestants, num_rounds: int
) -> tuple[dict[str, list[float]], dict[str, object], dict[str, str]]:
    """CPU seconds of each round, the last results, and the messages of those that fail."""
    seconds: dict[str, list[float]] = {}
    results: dict[str, object] = {}
    failures: dict[str, str] = {}
    for _ in range(num_rounds):
        for name, compute in contestants.items():
            if name in failures:
                continue
            start = time.process_time()
            try:
                results[name] = compute()
            except Exception as error:  # of any kind: of another library
                failures[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                continue
            seconds.setdefault(name, []).append(time.process_time() - start)
    return seconds, results, failures


def measure_products(model: nn.Module, data: Data, matrix: str, rounds: int) -> dict[str, object]:
    """Time products after the first, which builds what is kept."""
    size = sum(parameter.numel() for parameter in model.parameters())
    dtype = next(model.parameters()).dtype
    vector = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = plain_product(
        copy.deepcopy(model).double(),
        tuple(part.double() if part.is_floating_point() else part for part in data),
        vector.double(), matrix,
    )  # fmt: skip
    _, built, failures = time_in_turns(operators(model, data, matrix), 1)
    contestants = {name: partial(multiply, built[name], vector) for name in built}
    _, products, more = time_in_turns(contestants, 1)
    kept = {name: contestants[name] for name in products}
    seconds, products, last = time_in_turns(kept, rounds)
    return {
        "seconds": seconds,
        "failures": failures | more | last,
        "errors": {
            name: float((product.double() - expected).norm() / expected.norm())
            for name, product in products.items()
        },
    }


def measure_eigenpairs(model: nn.Module, data: Data, _: str, rounds: int) -> dict[str, object]:
    """Time the search, with operators that exist: building them is timed apart."""
    size = sum(parameter.numel() for parameter in model.parameters())
    seconds, built, failures = time_in_turns(operators(model, data, "hessian"), 1)

    def own() -> tuple[Tensor, Tensor]:
        found = hesspipe.eigenpairs(built["hesspipe"], num_largest=_NUM_PAIRS, tolerance=_TOLERANCE)
        return found.eigenvalues, found.eigenvectors

    def by_curvlinops() -> tuple[Tensor, Tensor]:
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = eigsh(
            built["curvlinops"].to_scipy(), k=_NUM_PAIRS, which="LA", tol=_TOLERANCE, v0=start
        )
        return torch.from_numpy(values.copy()), torch.from_numpy(vectors.copy())

    def by_pyhessian() -> tuple[Tensor, Tensor]:
        values, vectors = built["PyHessian"].eigenvalues(tol=_TOLERANCE, top_n=_NUM_PAIRS)
        columns = [torch.cat([part.flatten() for part in vector]) for vector in vectors]
        return torch.tensor(values), torch.stack(columns, dim=1)

    contestants = {"hesspipe": own, "curvlinops": by_curvlinops, "PyHessian": by_pyhessian}
    found, results, more = time_in_turns(contestants, rounds)
    return {
        "seconds": found,
        "build_seconds": seconds,
        "failures": failures | more,
        "errors": {name: _residual(model, data, *result) for name, result in results.items()},
    }


def _residual(model: nn.Module, data: Data, values: Tensor, vectors: Tensor) -> float:
    """Largest residual by plain double backward, divided by the largest eigenvalue."""
    dtype = next(model.parameters()).dtype
    vectors = vectors.to(dtype) / vectors.to(dtype).norm(dim=0)
    norms = [
        float((plain_product(model, data, vector, "hessian") - value * vector).norm())
        for value, vector in zip(values.to(dtype), vectors.T, strict=True)
    ]
    return max(norms) / float(values.abs().max())


def measure_density(model: nn.Module, data: Data, _: str, rounds: int) -> dict[str, object]:
    """Time the quadrature, by the function of each library, with operators that exist."""
    seconds, built, failures = time_in_turns(operators(model, data, "hessian"), 1)
    contestants: Contestants = {
        "hesspipe": lambda: hesspipe.density(built["hesspipe"], num_probes=1, num_steps=_STEPS),
        "curvlinops": lambda: curvlinops.lanczos_approximate_spectrum(
            built["curvlinops"], _STEPS, num_repeats=1
        ),
        "PyHessian": lambda: built["PyHessian"].density(iter=_STEPS, n_v=1),
    }
    found, _, more = time_in_turns(contestants, rounds)
    return {"seconds": found, "build_seconds": seconds, "failures": failures | more, "errors": {}}


_MEASURES = {
    "hessian": measure_products,
    "ggn": measure_products,
    "eigenpairs": measure_eigenpairs,
    "density": measure_density,
}


def run_cell(network: str, task: str, dtype: str, rounds: int) -> None:
    """Measure one cell and print it as JSON on the last line."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    model, data = make_problem(network, _DTYPES[dtype])
    with sdpa_kernel(SDPBackend.MATH):  # for all: the fused kernel has no second derivative
        measured = _MEASURES[task](model, data, task, rounds)
    load = os.getloadavg()[0]
    size = sum(parameter.numel() for parameter in model.parameters())
    row = {"network": network, "size": size, "task": task, "dtype": dtype, "load": load}
    print(json.dumps({"commit": _commit()} | row | measured))


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def format_report(rows: list[dict[str, object]]) -> str:
    """One table per task."""
    text = [
        "# Real networks: a comparison", "",
        f"ResNet-18 of torchvision, and small configurations of torchvision's ViT and "
        f"transformers' GPT-2; {_NUM_SAMPLES} samples of 3 x 32 x 32 or 32 tokens, one batch, "
        "softmax cross-entropy, evaluation mode, at initialization. CPU time of one thread, "
        "median over rounds in turn; the ratio is that of the better library's time to "
        "hesspipe's in the same round: median, and smallest to largest. Attention is computed by "
        "the math kernel for all. Building the operators, with the checks of hesspipe, is not in "
        "the ratios; its seconds follow the +. Errors are relative, "
        "against plain double backward in float64 for products, and true residuals divided by "
        "the largest eigenvalue for eigenpairs. The load is that of the machine of "
        f"{os.cpu_count()} processors. Written by `benchmarks/real_networks.py`.", "",
    ]  # fmt: skip
    for task, title in _TASKS.items():
        text += [f"## {title[0].upper()}{title[1:]}", ""]
        text.append(
            "| network | P | precision | "
            + " | ".join(_NAMES)
            + " | hesspipe faster by | rounds | load |"
        )
        text.append("|---|---:|---|" + "---:|" * 6)
        chosen = sorted(
            (row for row in rows if row["task"] == task),
            key=lambda row: (_NETWORKS.index(row["network"]), row["dtype"]),
        )
        text += [_line(row) for row in chosen]
        text.append("")
    failures = sorted(
        {f"- {name}, {row['network']}, {_TASKS[row['task']]}: {shorten(message, 120)}"
         for row in rows for name, message in row["failures"].items()}
    )  # fmt: skip
    if failures:
        text += ["## Failures", "", *failures, ""]
    text += ["## Remarks", "", *_REMARKS]
    measured = set(map(_cell_of, rows))
    missing = [
        f"{network}, {title}, {dtype}"
        for task, title in _TASKS.items() for network in _NETWORKS for dtype in _DTYPES
        if (network, task, dtype) not in measured
    ]  # fmt: skip
    if missing:
        text.append(f"- Not measured in this run: {'; '.join(missing)}.")
    text.append("")
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    commits = ", ".join(dict.fromkeys(str(row["commit"]) for row in rows))
    text.append(
        f"Python {platform.python_version()}, torch {torch.__version__}; hesspipe at {commits}; "
        f"{packages}.\n"
    )
    return "\n".join(text)


def _line(row: dict[str, object]) -> str:
    """One row of a table: figures with their errors, and the ratio with its spread."""
    seconds, is_rate = row["seconds"], row["task"] in ("hessian", "ggn")
    cells = []
    for name in _NAMES:
        if name in row["failures"]:
            cells.append("fails")
        elif name not in seconds:
            cells.append("has none")
        else:
            median = statistics.median(seconds[name])
            error = row["errors"].get(name)
            number = f"{1 / median:.2f}" if is_rate else f"{median:.2f}"
            if "build_seconds" in row:
                number += f" + {row['build_seconds'][name][0]:.2f}"
            cells.append(number + ("" if error is None else f" ({error:.0e})"))
    peers = [seconds[name] for name in seconds if name != "hesspipe"]
    ratio = ""
    if peers and "hesspipe" in seconds:
        best = min(peers, key=statistics.median)
        ratios = [other / own for other, own in zip(best, seconds["hesspipe"], strict=False)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    rounds = max(map(len, seconds.values()), default=0)
    return (
        f"| {row['network']} | {row['size']:,} | {row['dtype']} | {' | '.join(cells)} | {ratio} "
        f"| {rounds} | {row['load']:.1f} |"
    )


def main(arguments: argparse.Namespace) -> None:
    """Run each cell that has no row yet in a separate process, and write the report."""
    rows = read_rows(arguments.rows)
    for cell in itertools.product(arguments.tasks, arguments.networks, arguments.dtypes):
        task, network, dtype = cell
        if (network, task, dtype) not in map(_cell_of, rows):
            options = ["--rounds", str(arguments.rounds), "--cell", network, task, dtype]
            command = [sys.executable, __file__, *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{cell}: {done.stderr[-2000:]}")
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            arguments.rows.write_text(text, encoding="utf-8")
        arguments.output.write_text(format_report(rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, object]]:
    """Read the rows of a run that was ended before all cells were measured."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _cell_of(row: dict[str, object]) -> tuple[object, object, object]:
    return row["network"], row["task"], row["dtype"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(_TASKS), choices=_TASKS)
    parser.add_argument("--networks", nargs="+", default=list(_NETWORKS), choices=_NETWORKS)
    parser.add_argument("--dtypes", nargs="+", default=list(_DTYPES), choices=_DTYPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cell", nargs=3, help="for the program itself: measure one cell")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument(
        "--rows", type=Path, default=Path("real_networks.jsonl"),
        help="rows that are there are not measured again; remove the file to start anew",
    )  # fmt: skip
    parsed = parser.parse_args()
    if parsed.cell:
        run_cell(*parsed.cell, parsed.rounds)
    else:
        main(parsed)
