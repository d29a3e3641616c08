"""The machine: memory forecasts, and the device to compute on.

Importing this module does not load torch, so that a workflow can plan its jobs without it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from hesspipe.errors import TooLargeError
from hesspipe.process_settings import HeldSettings, Setting

if TYPE_CHECKING:
    import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
MOUNTS = Path("/proc/self/mountinfo")
# In messages of torch, whose CPU allocator has no exception of its own, and of the C++ library.
_SIGNS_OF_EXHAUSTION = (
    "not enough memory",
    "out of memory",
    "annot allocate memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't start new thread",
)
# Values of torch's `fp32_precision`: all digits, and whatever holds for all operations.
_FULL, _AS_ALL = "ieee", "none"
# From here on zeros are made in large pages, which have 2 MiB on most machines.
_LEAST_IN_LARGE_PAGES = 16 * 2**20
# The control device that NVIDIA's driver makes wherever it is loaded.
_DRIVER = Path("/dev/nvidiactl")


def available_bytes(device: torch.device | None = None) -> int:
    """Return the memory that a new array may take: what is free, within every limit on it.

    On a GPU it is what the driver has, and what torch keeps for later.

    Batch systems and containers limit the control group of a job, or a group above it, and
    ``ulimit -v`` the process; the figure for the whole machine shows neither. Nor does it show what
    Slurm has granted to a job, where it ends jobs itself that use more. Files that a group has read
    count as free, because the system drops them first.
    """
    if device is not None and device.type != "cpu":
        import torch

        there = torch.get_device_module(device)
        if hasattr(there, "mem_get_info"):  # some GPUs share the memory of the machine
            kept = there.memory_reserved(device) - there.memory_allocated(device)
            return int(there.mem_get_info(device)[0] + kept)
    rooms = [limit - used for limit, used in _limits()]
    return max(0, min([int(psutil.virtual_memory().available), *rooms]))


def available_on(device: torch.device | None) -> int:
    """Return `available_bytes` of a device, by default the CPU."""
    is_elsewhere = device is not None and device.type != "cpu"
    return available_bytes(device) if is_elsewhere else available_bytes()


def total_bytes() -> int:
    """Return the memory of the machine, within every limit on it: the most that may become free."""
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _limits())])


def _limits() -> Iterator[tuple[int, int]]:
    """Every limit of the memory, and what is used of it."""
    yield from _group_limits()
    yield from _process_limits()
    yield from _batch_limits()


def _group_limits() -> Iterator[tuple[int, int]]:
    """Limit and use of the memory of the process's control groups and of all above them."""
    for version, group in _own_groups():
        if version == 2:
            # Where version 1 still rules the memory, the tree of version 2 is below it.
            roots = [CONTROL_GROUP, CONTROL_GROUP / "unified"]
            names, reclaimable = ("memory.max", "memory.current"), "inactive_file"
        else:
            roots = [CONTROL_GROUP / "memory"]
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            reclaimable = "total_inactive_file"
        places = [(root, Path()) for root in roots] + _mounts(version)
        # In a container, the paths may be the host's, and only the root be there.
        for folder in (
            root / part
            for root, above in places
            for own in [group.relative_to(above) if group.is_relative_to(above) else group]
            for part in (own, *own.parents)
        ):
            limit, used = (_read_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield limit, used - _statistic(folder / "memory.stat", reclaimable)


def _mounts(version: int) -> list[tuple[Path, Path]]:
    """Other places where the control groups of memory are mounted, and the group that lies there.

    The lines of a process's mounts are described in proc_pid_mountinfo(5).
    """
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        mount, _, kind = (part.split(" ") for part in line.partition(" - "))
        is_memory = (
            kind[:1] == ["cgroup2"]
            if version == 2
            else kind[:1] == ["cgroup"] and "memory" in kind[-1].split(",")
        )
        if is_memory and len(mount) > 4:
            found.append((Path(mount[4]), Path(mount[3].strip("/"))))
    return [(root, group) for root, group in found if not root.is_relative_to("/sys/fs/cgroup")]


def _own_groups() -> list[tuple[int, Path]]:
    """Versions and relative paths of the process's control groups that may limit memory."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return [(2, Path())]
    entries = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    groups = [(2, path) for number, _, path in entries if number == "0"]
    groups += [(1, path) for _, parts, path in entries if "memory" in parts.split(",")]
    return [(version, Path(path.strip("/"))) for version, path in groups] or [(2, Path())]


def _read_number(path: Path) -> int | None:
    """Read a number; None if there is no such file, or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _statistic(path: Path, name: str) -> int:
    """Read a line of a group's statistics; 0 if it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _process_limits() -> Iterator[tuple[int, int]]:
    """Limit and use of the process's address space and data: ``ulimit -v`` and ``ulimit -d``."""
    if not psutil.LINUX:
        return
    process = psutil.Process()
    used = process.memory_info()
    for kind, amount in ((psutil.RLIMIT_AS, used.vms), (psutil.RLIMIT_DATA, used.data)):
        limit = process.rlimit(kind)[0]
        if limit != psutil.RLIM_INFINITY:
            yield limit, amount


def _batch_limits() -> Iterator[tuple[int, int]]:
    """What Slurm has granted to this job on this node, and what the job's processes use of it."""
    job = os.environ.get("SLURM_JOB_ID")
    cores = _number_in("SLURM_CPUS_ON_NODE")
    mib = _number_in("SLURM_MEM_PER_NODE") or _number_in("SLURM_MEM_PER_CPU") * cores
    if job is None or mib == 0:  # the whole node
        return
    first = psutil.Process()
    with contextlib.suppress(psutil.Error):  # of another user: the daemon that has started the job
        for parent in first.parents():
            if parent.environ().get("SLURM_JOB_ID") != job:
                break
            first = parent
    used = 0
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended
            used += process.memory_info().rss
    yield mib * 2**20, used


def _number_in(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0


def require(num_bytes: int, what: str, advice: str, *, device: torch.device | None = None) -> None:
    """Raise an error if an allocation would not fit into memory.

    Parameters
    ----------
    num_bytes : int
        Forecast of the allocation.
    what : str
        What needs the memory, e.g. "the hessian of P = 4270 parameters".
    advice : str
        What to do instead.
    device : torch.device, optional
        Whose memory it is; by default the CPU's.

    Raises
    ------
    TooLargeError
        If less is available.
    """
    available = available_on(device)
    if num_bytes > available:
        whose = f" on {device}" if device is not None and device.type != "cpu" else ""
        raise TooLargeError(
            f"{what} needs {num_bytes / 2**30:,.1f} GiB of memory{whose}, and "
            f"{available / 2**30:,.1f} GiB are available; {advice}"
        )


def zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Make an array of zeros, on Linux in large pages: they are there in a quarter of the time.

    Parameters
    ----------
    like : Tensor
        Its dtype and device are taken.
    *shape : int

    Returns
    -------
    Tensor

    Raises
    ------
    OSError
        If the system has too little memory; on other devices, what torch raises.
    """
    num_bytes = math.prod(shape) * like.element_size()
    if num_bytes < _LEAST_IN_LARGE_PAGES or like.device.type != "cpu" or not psutil.LINUX:
        return like.new_zeros(shape)
    import torch

    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=like.dtype).view(shape)


@contextlib.contextmanager
def name_exhaustion(what: str, advice: str) -> Iterator[None]:
    """Replace errors of allocators by one that says what was computed, and the way out.

    A forecast misses what a user's network allocates, and memory that other processes take later.

    Parameters
    ----------
    what : str
        What is computed, e.g. "the density of the hessian".
    advice : str
        What to do instead.

    Raises
    ------
    TooLargeError
        If Python, NumPy, Arrow, the system or torch, on the CPU or a GPU, ran out of memory.
    """
    try:
        yield
    except TooLargeError:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_exhaustion(error):
            raise
        raise exhaustion(error, what, advice) from error


def exhaustion(error: BaseException, what: str, advice: str) -> TooLargeError:
    """Make the error that replaces an allocator's; see `name_exhaustion`."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return TooLargeError(f"{what} needs more memory than is available ({reason}); {advice}")


def is_exhaustion(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return type(error).__name__ == "OutOfMemoryError" or any(
        sign in str(error) for sign in _SIGNS_OF_EXHAUSTION
    )


def has_gpu() -> bool:
    """Return whether jobs will run on a GPU: $HESSPIPE_DEVICE names one, or one is present."""
    name = os.environ.get("HESSPIPE_DEVICE")
    return name.startswith("cuda") if name else _DRIVER.exists()


def pick_device() -> torch.device:
    """Select the device at run time: $HESSPIPE_DEVICE if set, else the first GPU, else the CPU.

    Raises
    ------
    ValueError
        If the variable names a device that torch cannot use on this machine.
    """
    import torch

    name = os.environ.get("HESSPIPE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"HESSPIPE_DEVICE must name a usable device such as 'cpu' or 'cuda:0', got {name!r} "
            f"({error})"
        ) from None
    if device.type == "cuda":
        # Otherwise cuBLAS may sum in another order in each run; read when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return device


@contextlib.contextmanager
def exact_kernels() -> Iterator[None]:
    """Make convolutions on a GPU reproducible, and compute in float32 in full precision.

    By default cuDNN may sum in a different order in each run, and rounds factors to 10 bits
    (TF32). Matrix products do so, on CPUs too, where the caller has set a lower precision for them.
    """
    with _EXACT_KERNELS.held():
        yield


def _exact_kernels() -> list[Setting]:
    """The settings in both of torch's interfaces.

    Where the caller has used the newer one, `fp32_precision`, torch refuses to read the older one.
    """
    import torch

    backends = torch.backends
    older = [
        Setting(torch._C._get_cudnn_benchmark, torch._C._set_cudnn_benchmark, False),
        Setting(torch._C._get_cudnn_deterministic, torch._C._set_cudnn_deterministic, True),
        Setting(torch._C._get_cudnn_allow_tf32, torch._C._set_cudnn_allow_tf32, False),
        Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    ]
    owners = [backends.cuda.matmul] + [
        getattr(backend, name)
        for backend in (backends.cudnn, backends.mkldnn)
        for name in ("conv", "rnn", "matmul")
        if hasattr(backend, name)
    ]
    newer = [
        Setting(partial(_precision, owner), partial(_set_precision, owner), _FULL)
        for owner in owners
        if hasattr(owner, "fp32_precision")
    ]
    return [*filter(_is_readable, older), *newer]


def _precision(owner: Any) -> str:
    """The precision of float32 of some operations, their own or that of all operations."""
    found = str(owner.fp32_precision)
    return _FULL if found == _AS_ALL else found


def _set_precision(owner: Any, value: str) -> None:
    """Set it, by itself only where that of all operations is another."""
    owner.fp32_precision = _AS_ALL
    if _precision(owner) != value:
        owner.fp32_precision = value


def _is_readable(setting: Setting) -> bool:
    try:
        setting.read()
    except RuntimeError:
        return False
    return True


_EXACT_KERNELS = HeldSettings(_exact_kernels)


@contextlib.contextmanager
def reproducible_sums(device: torch.device) -> Iterator[None]:
    """On a GPU, prefer operations that add in the same order in each run, and warn of others.

    On CPUs the order is fixed by the number of threads.
    """
    if device.type == "cpu":
        yield
        return
    import torch

    before = torch.get_deterministic_debug_mode()
    if before == 0:  # a stricter setting of the caller's stays
        torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
