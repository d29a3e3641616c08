"""Time training by hesspipe against a plain torch loop: same model, same batches.

Claim: `hesspipe.networks.training.train` is as fast as a hand-written loop of forward, backward and
update, except for its records and checkpoints. Both train the bare AlexNet on random images of
CIFAR-10's size, in turns, from the same point and in the same order of batches, with records and
checkpoints at the first and last step only, which the plain loop makes as well. Their final
parameters are compared to the last bit.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from hesspipe.data.dataset import Dataset
from hesspipe.networks.architectures import alexnet, initialize_scaled
from hesspipe.networks.training import Schedule, train
from hesspipe.seeding import generator

_NUM_SAMPLES = 2000
_STEP_SIZE = 0.01
# Processor seconds do not depend on what else the machine does, wall-clock seconds include waiting.
_CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
# Batch sizes of the paper's two parts, and steps that take some seconds on a core.
_PARTS = {1000: 6, 32: 120}


def random_data() -> Dataset:
    """Draw noise images with random labels; few, so that records are cheap."""
    source = generator(0, "benchmark")
    inputs = torch.randn(_NUM_SAMPLES, 3, 32, 32, generator=source)
    targets = torch.randint(10, (_NUM_SAMPLES,), generator=source)
    return Dataset(inputs, targets, inputs[:100], targets[:100], 10)


def new_model() -> nn.Sequential:
    """Build the bare AlexNet at a fixed initial point."""
    model = alexnet(
        input_shape=(3, 32, 32),
        channels=[64, 192, 384, 256, 256],
        kernel_sizes=[11, 5, 3, 3, 3],
        first_stride=4,
        pool_after=[1, 2, 5],
        num_outputs=10,
    )
    initialize_scaled(model, 2.0, generator(0, "initial parameters"))
    return model


def time_hesspipe(
    data: Dataset, batch_size: int, num_steps: int, clock: Callable[[], float]
) -> tuple[float, nn.Module]:
    """Time hesspipe's training."""
    model = new_model()
    schedule = Schedule(_STEP_SIZE, num_steps, batch_size, num_steps, num_steps, num_recorded=100)
    with tempfile.TemporaryDirectory() as folder:
        start = clock()
        train(model, data, schedule, seed=0, path_to_state=folder, progress=False)
        return clock() - start, model


def time_plain(
    data: Dataset, batch_size: int, num_steps: int, clock: Callable[[], float]
) -> tuple[float, nn.Module]:
    """Time a plain hand-written loop with torch's optimizer."""
    model = new_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=_STEP_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        start = clock()
        evaluate(model, data)
        save_file(model.state_dict(), f"{folder}/first.safetensors")
        step, epoch = 0, 0
        while step < num_steps:
            order = torch.randperm(
                _NUM_SAMPLES, generator=generator(0, f"batches of epoch {epoch}")
            )
            for chosen in order.split(batch_size)[: num_steps - step]:
                loss = nn.functional.cross_entropy(
                    model(data.train_inputs[chosen]), data.train_targets[chosen]
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
            epoch += 1
        evaluate(model, data)
        save_file(model.state_dict(), f"{folder}/last.safetensors")
        return clock() - start, model


def evaluate(model: nn.Module, data: Dataset) -> float:
    """Measure the contents of a record: loss, gradient norm and test loss."""
    loss = nn.functional.cross_entropy(model(data.train_inputs[:100]), data.train_targets[:100])
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        test = nn.functional.cross_entropy(model(data.test_inputs), data.test_targets)
    return loss.item() + test.item() + sum(slope.norm().item() for slope in slopes)


def main(num_threads: int, num_rounds: int, clock: str, path_to_report: Path) -> None:
    """Let both take turns, compare, and write the report."""
    torch.set_num_threads(num_threads)
    data, lines = random_data(), []
    for batch_size, num_steps in _PARTS.items():
        seconds: dict[str, list[float]] = {"hesspipe": [], "plain": []}
        for number in range(num_rounds):
            runs = [("hesspipe", time_hesspipe), ("plain", time_plain)]
            ends = {}
            for name, run in runs if number % 2 else runs[::-1]:
                elapsed, ends[name] = run(data, batch_size, num_steps, _CLOCKS[clock])
                seconds[name].append(elapsed)
            same = zip(ends["hesspipe"].parameters(), ends["plain"].parameters(), strict=True)
            assert all(torch.equal(one, other) for one, other in same), "the ends differ"
        best = {name: min(times) / num_steps * 1000 for name, times in seconds.items()}
        ratios = [a / b for a, b in zip(seconds["hesspipe"], seconds["plain"], strict=True)]
        lines.append(
            f"| {batch_size:,} | {best['hesspipe']:.1f} | {best['plain']:.1f} "
            f"| {best['hesspipe'] / best['plain']:.3f} | {statistics.median(ratios):.3f} |"
        )
        print(lines[-1], flush=True)
    threads = f"{num_threads} thread{'s' if num_threads > 1 else ''}"
    machine = f"{threads}; Python {platform.python_version()}, torch {torch.__version__}"
    rows = "\n".join(lines)
    path_to_report.write_text(
        "# Training against a plain torch loop\n\n"
        f"Milliseconds ({clock} clock) per step of the bare AlexNet (2,472,266 parameters, "
        "float32, CPU), the first and the last record and checkpoint included; the best of "
        f"{num_rounds} rounds, and the median over rounds of the ratio within a round. Both end at "
        "the same parameters to the last bit. Written by `benchmarks/training.py`.\n\n"
        "| batch size | hesspipe | plain loop | ratio of the best | median ratio |\n"
        f"|---:|---:|---:|---:|---:|\n{rows}\n\n{machine}.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=list(_CLOCKS), default="wall")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    main(arguments.threads, arguments.rounds, arguments.clock, arguments.output)
