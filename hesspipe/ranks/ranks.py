"""The processes of a `torch.distributed` group, which raise errors and decide together.

Processes that work on one computation wait for each other. If one of them raises an error, the
others wait for ever, or are told that a connection was closed. Here, every exchange of numbers is
preceded by a small one, in which each process says what it is about to do and whether it has
failed. All of them then go on, or all raise the same error.

Only numbers and JSON are sent, no pickled objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from hesspipe.errors import LostRankError, RankError
from hesspipe.ranks.groups import has_cpu, is_alive, on_cpu, rank_in
from hesspipe.ranks.interrupts import late_interrupts
from hesspipe.ranks.orders import Orders, Term
from hesspipe.ranks.reports import difference, printed, rank_error, report, told

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# By their names from torch 2.13 on, and before.
_join = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_add_to_part = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
# Between two looks at whether the other processes live, in seconds.
_PATIENCE = 1.0
# What a process has sent may arrive this much after its end, in seconds, on a busy machine.
_LATENESS = 5.0
# Of small exchanges, whatever the user's torch.set_default_device says.
_CPU = torch.device("cpu")
# Numbers that an exchange carries from rank 0.
_LONGEST_ORDER = 6


class Ranks:
    """The processes of a group, each with its rank.

    All of them must call the same methods in the same order. If one calls another one, or has
    failed, all of them raise a `RankError` instead of waiting.

    Parameters
    ----------
    group : ProcessGroup
        Initialized by the caller; `torch.distributed.group.WORLD` has all processes. One that
        reaches GPUs only, as of NCCL, gets a second one of gloo for the small exchanges.

    Attributes
    ----------
    group : ProcessGroup
    rank, size : int
        Of this process in the group, from 0, and the number of processes.
    orders : Orders or None
        Those of the computation that this process leads at present.

    Raises
    ------
    ValueError
        If the group is not initialized, or this process is not in it.

    Examples
    --------
    The seed must be the same in all, and what one raises is raised in all:

    >>> def draw(ranks, seed):
    ...     ranks.agree(seed=seed)
    ...     with ranks.raise_together("drawing"):
    ...         return torch.rand(1) / ranks.rank
    """

    def __init__(self, group: ProcessGroup) -> None:
        rank = rank_in(group)
        self.group, self.rank, self.size = group, rank, dist.get_world_size(group)
        self._global = dist.get_process_group_ranks(group)
        self._has_cpu = has_cpu(group)
        self._control = group if self._has_cpu else on_cpu(group, self._global)
        process = psutil.Process()
        own = [socket.gethostname(), process.pid, process.create_time()]
        self.orders: Orders | None = None
        self._processes: list[list[Any]] = [own] * self.size
        self._processes = self.gather(own, "the meeting of the processes")

    @property
    def is_first(self) -> bool:
        """Whether this process decides, writes files and prints."""
        return self.rank == 0

    def agree(self, **values: Any) -> None:
        """Raise an error in all processes if values differ between them.

        Parameters
        ----------
        **values
            By name; of JSON, or anything that is printed in the same way where it is the same.

        Raises
        ------
        RankError
            Also a ValueError: each name that differs, with the values and ranks.
        """
        self.agree_on(values)

    def agree_on(self, values: Mapping[str, Any]) -> None:
        """Compare values as `agree` does, with names that are any text."""
        own = {name: printed(value) for name, value in values.items()}
        found = self.gather(own, "the comparison of settings")
        names = dict.fromkeys(name for one in found for name in one)
        lines = [
            line
            for name in names
            if (line := difference(name, [one.get(name, "nothing") for one in found]))
        ]
        if lines:
            raise told(rank_error("; ".join(lines), ["ValueError"]))

    def sum_of(self, term: Term, argument: Tensor, what: str) -> Tensor:
        """Compute a sum over the processes of a function of a tensor.

        Parameters
        ----------
        term : Term
            Computes the part of this process.
        argument : Tensor
            Of equal bits in all processes, which is tested. In a computation that rank 0 leads,
            the others do not call this method; see `hesspipe.ranks.orders`.
        what : str
            Is computed, for messages.
        """
        if self.orders is not None:
            return self.orders.call(term, argument)
        with late_interrupts():
            self._exchange(f"{what} ({_layout(argument)}, checksum {checksum(argument):x})")
        return self.add_up(term, argument, what)

    def add_up(
        self, term: Term, argument: Tensor, what: str, *, only_first: bool = False
    ) -> Tensor:
        """Compute the part of this process, and add up those of all, right after an exchange.

        A process that fails says so in an additional entry of its part, so that no exchange is
        needed before each sum.
        """
        error: BaseException | None = None
        shape = argument.shape[:0] if term.is_scalar else argument.shape
        try:
            value = term.compute(argument)
        except BaseException as caught:
            error, value = caught, argument.new_zeros(shape)
        failed = value.new_full((1,), float(error is not None))
        total = torch.cat([value.detach().reshape(-1), failed])
        with late_interrupts():
            self._add(total, what, only_first=only_first)
        if error is not None:
            with self.raise_together(what):
                raise error
        if total[-1] > 0 and (self.is_first or not only_first):
            with self.raise_together(what):
                pass
        return total[:-1].view(shape)

    def order(self, numbers: Sequence[int]) -> list[int]:
        """Return up to six numbers, at least 0, that rank 0 has, in all processes."""
        with late_interrupts():
            return self._exchange("an order of rank 0", None, numbers if self.is_first else ())

    @contextlib.contextmanager
    def raise_together(self, what: str) -> Iterator[None]:
        """Raise in all processes what a part of the program raises in one of them; may be nested.

        Parameters
        ----------
        what : str
            Done in the block, e.g. "a product"; the same in all processes.

        Raises
        ------
        RankError
            With the rank, the class and the message of the error; also of that class, if it is of
            Python or hesspipe. If all processes raise the same error, it is raised as it is, as
            are `KeyboardInterrupt` and `SystemExit` where they occurred.
        """
        with self.tell_errors(what):
            yield
        with late_interrupts():
            self._exchange(what)

    @contextlib.contextmanager
    def tell_errors(self, what: str) -> Iterator[None]:
        """Raise an error as `raise_together` does, in the next exchange of the other processes.

        Nothing is exchanged without an error: for checks before what is exchanged in any case.
        """
        try:
            yield
        except BaseException as error:
            if not getattr(error, "_is_told", False):
                with late_interrupts():
                    self._exchange(what, error)
            raise

    def decide(self, value: Any, source: int = 0) -> Any:
        """Return the value that one rank has, in all processes.

        Parameters
        ----------
        value : of JSON
            Not used in the other processes.
        source : int
            That rank.
        """
        own = value if self.rank == source else None
        return self.gather(own, f"a decision of rank {source}")[source]

    def gather(self, value: Any, what: str) -> list[Any]:
        """Return the values of all processes, which are of JSON, in the order of ranks."""
        with late_interrupts():
            self._exchange(what)
            return [json.loads(text) for text in self._texts(json.dumps(value))]

    def add(self, tensor: Tensor, what: str, *, only_first: bool = False) -> None:
        """Add up a tensor over the processes, in place.

        Parameters
        ----------
        tensor : Tensor
            Of one shape and dtype in all processes. All get equal bits.
        what : str
            The same in all processes.
        only_first : bool
            Whether only rank 0 gets the sum; the tensors of the others are then used up.
        """
        with late_interrupts():
            self._exchange(f"{what}, a sum of {_layout(tensor)}")
            self._add(tensor, what, only_first=only_first)

    def broadcast(self, tensor: Tensor, what: str, source: int = 0) -> None:
        """Overwrite a tensor by that of one rank; of one shape and dtype in all processes."""
        with late_interrupts():
            self._exchange(f"{what}, a broadcast of {_layout(tensor)}")
            self.send(tensor, what, source)

    def send(self, tensor: Tensor, what: str, source: int = 0) -> None:
        """Overwrite a tensor by that of one rank, right after an exchange."""
        root = self._global[source]
        with late_interrupts(), self._reachable(tensor) as (buffer, group):
            self._wait(dist.broadcast(buffer, root, group=group, async_op=True), what)

    def _add(self, tensor: Tensor, what: str, *, only_first: bool) -> None:
        with self._reachable(tensor) as (buffer, group):
            if only_first:
                work = dist.reduce(buffer, self._global[0], group=group, async_op=True)
            else:
                work = dist.all_reduce(buffer, group=group, async_op=True)
            self._wait(work, what)

    def join(self, part: Tensor, what: str) -> Tensor:
        """Concatenate vectors (n,) of the processes in the order of ranks: (size * n,).

        Parameters
        ----------
        part : Tensor, shape (n,)
            Of one length and dtype in all processes.
        what : str
            The same in all processes.
        """
        whole = part.new_empty(self.size * len(part))
        with self._shared(whole, f"{what}: parts") as (buffer, group):
            own = part.to(buffer.device).contiguous()
            self._wait(_join(buffer, own, group=group, async_op=True), what)
        return whole

    def add_to_part(self, whole: Tensor, what: str) -> Tensor:
        """Add up vectors (size * n,) of the processes, and return this one's part (n,) of the sum.

        Parameters
        ----------
        whole : Tensor, shape (size * n,)
            Of one length and dtype in all processes.
        what : str
            The same in all processes.
        """
        part = whole.new_empty(len(whole) // self.size)
        with self._shared(part, f"{what}: a sum of parts") as (buffer, group):
            all_parts = whole.to(buffer.device).contiguous()
            work = _add_to_part(buffer, all_parts, group=group, async_op=True)
            self._wait(work, what)
        return part

    @contextlib.contextmanager
    def _shared(self, tensor: Tensor, what: str) -> Iterator[tuple[Tensor, ProcessGroup]]:
        """Say what comes, and give a tensor on a device that the group reaches."""
        with late_interrupts():
            self._exchange(f"{what} of {_layout(tensor)}")
            with self._reachable(tensor) as reached:
                yield reached

    @contextlib.contextmanager
    def _reachable(self, tensor: Tensor) -> Iterator[tuple[Tensor, ProcessGroup]]:
        """Give a tensor on a device that the group reaches, and copy it back."""
        is_on_gpu = tensor.device.type == "cuda"
        if is_on_gpu and not self._has_cpu:
            buffer, group = tensor.contiguous(), self.group
        else:
            buffer, group = tensor.cpu().contiguous(), self._control
        yield buffer, group
        if buffer is not tensor:
            tensor.copy_(buffer)
        if is_on_gpu:
            torch.cuda.synchronize(tensor.device)

    def _exchange(
        self, what: str, error: BaseException | None = None, order: Sequence[int] = ()
    ) -> list[int]:
        """Raise in all processes if one has failed, or does something else; return an order."""
        code = int.from_bytes(hashlib.blake2b(what.encode(), digest_size=7).digest(), "big")
        numbers = [*order, *[0] * (_LONGEST_ORDER - len(order))]
        state = torch.tensor(
            [error is not None, code, -code, *numbers], dtype=torch.int64, device=_CPU
        )
        self._wait(
            dist.all_reduce(state, dist.ReduceOp.MAX, group=self._control, async_op=True), what
        )
        has_failed, largest, minus_smallest, *found = state.tolist()
        if has_failed:
            reports = self._texts(json.dumps(report(error)))
            self._raise([json.loads(text) for text in reports], error)
        elif largest != -minus_smallest:
            names = self._texts(what)
            line = difference("what the processes do", names)
            advice = "call the same functions with the same arguments, in the same order, in all"
            raise told(RankError(f"{line}; {advice}"))
        return [int(number) for number in found]

    def _texts(self, text: str) -> list[str]:
        """Gather one text from each process."""
        data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64, device=_CPU) for _ in range(self.size)]
        own = torch.tensor([len(data)], dtype=torch.int64, device=_CPU)
        self._wait(dist.all_gather(sizes, own, group=self._control, async_op=True), "a message")
        longest = max(int(size) for size in sizes)
        padded = torch.nn.functional.pad(data, (0, longest - len(data)))
        found = [torch.empty(longest, dtype=torch.uint8, device=_CPU) for _ in range(self.size)]
        self._wait(dist.all_gather(found, padded, group=self._control, async_op=True), "a message")
        return [
            one[: int(size)].numpy().tobytes().decode()
            for one, size in zip(found, sizes, strict=True)
        ]

    def _raise(self, reports: list[dict[str, Any] | None], error: BaseException | None) -> None:
        """Raise what processes report, as one error."""
        failed = {rank: one for rank, one in enumerate(reports) if one is not None}
        texts = {f"{one['name']}: {one['message']}" for one in failed.values()}
        is_own = error is not None and not isinstance(error, Exception)
        if error is not None and (is_own or (len(failed) == self.size and len(texts) == 1)):
            raise told(error)
        lines = [
            f"{self._name(rank)} failed: {one['name']}"
            + (f": {one['message']}" if one["message"] else "")
            for rank, one in failed.items()
        ]
        first = next(iter(failed.values()))
        found = rank_error("\n".join(lines), first["classes"])
        if error is not None:
            vars(found).update(vars(error))
        raise told(found) from error

    def _name(self, rank: int) -> str:
        host, number, _ = self._processes[rank]
        return f"rank {rank} of {self.size} (process {number} on {host})"

    def _wait(self, work: Any, what: str) -> None:
        """Wait for an exchange, while the other processes live."""
        if work is None:  # not in the group
            return
        is_over, deadline = False, math.inf
        while True:
            try:
                work.wait(timedelta(seconds=_PATIENCE))
                return
            except RuntimeError as error:
                was_over, is_over, lost = is_over, work.is_completed(), self._ended()
                if is_over and not was_over:  # it may have succeeded since: then look again
                    continue
                if lost and not is_over:
                    deadline = min(deadline, time.monotonic() + _LATENESS)
                if not is_over and time.monotonic() < deadline:
                    continue
                if not lost:  # its connections close before it has ended
                    time.sleep(_PATIENCE)
                    lost = self._ended()
                raise told(LostRankError(lost, what, error)) from error

    def _ended(self) -> list[str]:
        """Name the processes on this machine that have ended."""
        return [
            self._name(rank)
            for rank, (host, number, begun) in enumerate(self._processes)
            if host == socket.gethostname() and not is_alive(number, begun)
        ]


def _layout(tensor: Tensor) -> str:
    return f"{tensor.dtype} and shape {tuple(tensor.shape)}"


def checksum(tensor: Tensor) -> int:
    """Add up the bits of a tensor of floating point."""
    kind = torch.int64 if tensor.itemsize == 8 else torch.int32
    bits = tensor.detach().contiguous().view(kind)
    return int(bits.sum()) + 31 * int(bits.flatten()[::3].sum())
