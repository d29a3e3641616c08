"""A device for tests where no GPU is: memory of its own in torch's eyes, and the CPU's in truth.

On it an operation that mixes devices, a generator of another device, or `.numpy()` without `.cpu()`
fails as on a GPU, while every number is the CPU's. See `stand_in.cpp`; a C++ compiler is needed.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import psutil
import torch

NAME = "standin"
_SOURCE = Path(__file__).with_suffix(".cpp")


def has_compiler() -> bool:
    """Return whether the device can be built here."""
    return shutil.which("c++") is not None and (Path(torch.__file__).parent / "include").is_dir()


def register(folder: Path) -> torch.device:
    """Build the device, unless the folder has it, and register it; once in a process.

    Parameters
    ----------
    folder : Path
        For the library, by the digest of its source and the version of torch.
    """
    if not hasattr(torch, NAME):
        library = _built(folder)
        torch.utils.rename_privateuse1_backend(NAME)
        torch._register_device_module(NAME, _module())
        torch.utils.generate_methods_for_privateuse1_backend()
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL).register_hooks()
    return torch.device(NAME, 0)


def _built(folder: Path) -> Path:
    name = hashlib.sha256(_SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    library = folder / f"stand_in_{name}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        home = Path(torch.__file__).parent
        temporary = library.with_suffix(f".{psutil.Process().pid}.so")
        subprocess.run(
            [
                *("c++", "-O0", "-shared", "-fPIC", "-std=c++20", "-w", str(_SOURCE)),
                *(f"-I{home / 'include'}", f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu"),
                *("-o", str(temporary)),
            ],
            check=True,
            capture_output=True,
        )
        temporary.replace(library)
    return library


def _module() -> ModuleType:
    """What torch and hesspipe ask of a device's module."""
    module = ModuleType(f"torch.{NAME}")
    numbers = {
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "manual_seed_all": lambda _: None,
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
        "get_rng_state": lambda _=0: torch.get_rng_state(),
        "set_rng_state": lambda state, _=0: torch.set_rng_state(state),
        "mem_get_info": lambda _=0: (psutil.virtual_memory().available, 2**40),
        "memory_reserved": lambda _=0: 0,
        "memory_allocated": lambda _=0: 0,
        "get_device_name": lambda _=0: "stand-in",
    }
    for name, function in numbers.items():
        setattr(module, name, function)
    return module
