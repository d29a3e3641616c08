"""What each process of the tests of `hesspipe.ranks` does."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from process_groups import raised

from hesspipe.errors import NotConvergedError, TooLargeError
from hesspipe.ranks.ranks import Ranks


class OwnError(ValueError):
    """Of a user's program."""


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def _raise(error: BaseException) -> None:
    raise error


# By name: what one rank does, the classes that all others see, and a part of the message.
FAILURES: dict[str, tuple[Callable[[], Any], list[str], str]] = {
    "value": (lambda: _raise(ValueError("bad label")), ["RankError", "ValueError"], "bad label"),
    "type": (lambda: len(3), ["RankError", "TypeError"], "has no len()"),  # type: ignore[arg-type]
    "index": (lambda: [][0], ["RankError", "IndexError"], "out of range"),
    "memory": (lambda: _raise(MemoryError()), ["RankError", "MemoryError"], "MemoryError"),
    "torch": (lambda: torch.ones(2) @ torch.ones(3), ["RankError", "RuntimeError"], "size"),
    "own": (lambda: _raise(OwnError("mine")), ["RankError", "ValueError"], "OwnError: mine"),
    "large": (lambda: _raise(TooLargeError("9 GiB")), ["TooLargeError", "MemoryError"], "9 GiB"),
    "file": (lambda: Path("/nowhere/x").read_text(), ["FileNotFoundError"], "/nowhere/x"),
    "group": (
        lambda: _raise(ExceptionGroup("both", [ValueError(1)])), ["RankError"], "both",
    ),
    "unicode": (lambda: b"\xff".decode(), ["RankError", "UnicodeDecodeError"], "0xff"),
    "converged": (
        lambda: _raise(NotConvergedError("1 of 2", "pairs")), ["NotConvergedError"], "1 of 2",
    ),
    "interrupt": (_interrupt, ["RankError"], "KeyboardInterrupt"),
    "exit": (lambda: _raise(SystemExit(3)), ["RankError"], "SystemExit"),
}  # fmt: skip


def failures(rank: int, failing: int) -> dict[str, Any]:
    """One rank fails, in a nested block, and all go on afterwards."""
    ranks = Ranks(dist.group.WORLD)
    found: dict[str, Any] = {}
    for name, (fail, _, _) in FAILURES.items():

        def compute(fail: Callable[[], Any] = fail) -> None:
            with ranks.raise_together("all"), ranks.raise_together("a part"):
                if rank == failing:
                    fail()

        found[name] = raised(compute)
        ones = torch.ones(3)
        ranks.add(ones, "ones")
        assert ones.tolist() == [ranks.size] * 3
    return found


def exchanges(rank: int) -> dict[str, Any]:
    """What is compared, decided and added."""
    ranks = Ranks(dist.group.WORLD)
    numbers = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
    total, first, only = numbers.clone(), numbers.clone(), numbers.clone()
    ranks.add(total, "numbers")
    ranks.broadcast(first, "numbers")
    ranks.add(only, "numbers", only_first=True)

    def other_names() -> None:
        with ranks.raise_together("b" if rank == 1 else "a"):
            pass

    def interrupted() -> None:
        with ranks.raise_together("waiting"):
            if rank == 2:
                time.sleep(0.5)
            else:  # while it waits for rank 2
                signal.setitimer(signal.ITIMER_REAL, 0.2)
            ranks.add(torch.ones(1), "ones")

    def with_default_device() -> None:
        with torch.device("meta"):
            one = torch.ones(1, device="cpu")
            ranks.agree(seed=1)
            ranks.add(one, "ones")
        assert float(one) == ranks.size

    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    return {
        "numbers": numbers,
        "total": total,
        "first": first,
        "only": only,
        "decision": ranks.decide({"stop": rank == 0, "size": 0.1}),
        "same": raised(lambda: ranks.agree(seed=1, tolerance=0.1, names=["a", "b"])),
        "differs": raised(lambda: ranks.agree(seed=rank // 2, tolerance=0.1, steps=rank)),
        "missing": raised(lambda: ranks.agree_on({"a": 1} if rank else {})),
        "order": raised(other_names),
        "shape": raised(lambda: ranks.add(torch.ones(2 + rank), "ones")),
        "kind": raised(lambda: ranks.decide(1) if rank else ranks.broadcast(torch.ones(1), "one")),
        "all": raised(lambda: _fail_in_all(ranks)),
        "default device": raised(with_default_device),
        "two": raised(lambda: _fail_in_all(ranks, but=1)),
        "interrupted": raised(interrupted),
        "after": ranks.decide(rank),
    }


def _fail_in_all(ranks: Ranks, but: int = -1) -> None:
    with ranks.raise_together("a part"):
        if ranks.rank != but:
            raise ZeroDivisionError("the same")


def death(rank: int, dying: int) -> dict[str, Any] | None:
    """One rank is killed while the others wait for it."""
    ranks = Ranks(dist.group.WORLD)

    def compute() -> None:
        with ranks.raise_together("the density"):
            if rank == dying:
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGKILL)
            ranks.add(torch.ones(5), "a product")

    begun = time.monotonic()
    found = raised(compute)
    return {"raised": found, "seconds": time.monotonic() - begun}


def silence(rank: int, silent: int, folder: str) -> dict[str, Any] | None:
    """One rank lives, but does not come; the others wait as long as their group says."""
    ranks = Ranks(dist.new_group(timeout=timedelta(seconds=3)))
    found: dict[str, Any] | None = None
    if rank != silent:
        begun = time.monotonic()
        error = raised(lambda: ranks.add(torch.ones(5), "a product"))
        found = {"raised": error, "seconds": time.monotonic() - begun}
        Path(folder, f"{rank}.raised").touch()
    while len(list(Path(folder).glob("*.raised"))) < ranks.size - 1:  # none ends before the others
        time.sleep(0.1)
    return found


def page(rank: int, blocks: list[str], folder: str) -> dict[str, Any]:
    """Run the programs of a page of the documentation, and the same with all data in a process."""
    os.chdir(folder)
    program = "".join(blocks)
    names: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    exec(program, names)
    found: dict[str, Any] = {"state": Path("search.safetensors").exists()}
    exec(
        program.replace(", process_group=dist.group.WORLD", "")
        .replace("rank::size", ":")
        .replace("search.", f"search{rank}."),
        whole,
    )
    return found | _numbers(names) | {"whole": _numbers(whole)}


def _numbers(names: dict[str, Any]) -> dict[str, Any]:
    return {
        "pairs": names["pairs"].eigenvalues,
        "density": names["density"].nodes,
        "curvature": names["curvature"],
        "loss": names["loss"],
    }


def late_exchanges(rank: int) -> dict[str, Any]:
    """Many exchanges that end just when the others have looked whether all processes live."""
    module = sys.modules[Ranks.__module__]
    setattr(module, "_PATIENCE", 1e-3)  # noqa: B010  # private, and only in this process
    ranks = Ranks(dist.group.WORLD)
    waits = random.Random(rank)

    def compute() -> None:
        for _ in range(60):
            time.sleep(waits.random() * 6e-3)
            ranks.add(torch.ones(1), "ones")

    return {"raised": raised(compute)}
