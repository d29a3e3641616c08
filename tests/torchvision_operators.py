"""Lets PyPI's torchvision, and what imports it, be imported beside a CPU build of torch."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

import torch

# The compiled extension of PyPI's torchvision does not load beside a CPU build of torch. Without
# the schemas of these two operators, its import fails; no model of the tests calls them.
_OPERATORS = "nms", "qnms"
_libraries: list[torch.library.Library] = []


def declare_operators() -> None:
    """Let torchvision be imported where its extension is built for another torch."""
    if _libraries or "torchvision" in sys.modules or find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        _libraries.append(library)  # it is undone when collected
        for operator in _OPERATORS:
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
