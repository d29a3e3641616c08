"""An objective with the structure of another model: layers, attributes and hooks."""

from __future__ import annotations

import copy

from torch import nn

from hesspipe.objective.copies import Copier
from hesspipe.objective.flat_model import has_two_names, signature_of
from hesspipe.objective.objective import Objective


def with_structure_of(objective: Objective, model: nn.Module) -> Objective:
    """Copy an objective with the structure of a model, in the modes that its modules have had.

    Parameters
    ----------
    objective : Objective
    model : nn.Module
        With parameters of the same names and shapes; it is copied.

    Returns
    -------
    Objective
        At the same theta and buffers, without the checks of a new one.
    """
    changed, flat = copy.copy(objective), copy.copy(objective._flat)
    modes = {name: module.training for name, module in flat.structure.named_modules()}
    flat.structure = Copier(flat.dtype, flat.device).copy(model)
    for name, module in flat.structure.named_modules():
        module.training = modes.get(name, modes[""])
        vars(module).pop("forward", None)  # wrapped for mixed precision
    flat._signature, flat._is_tied = signature_of(flat.structure), has_two_names(flat.structure)
    changed._adopt(flat)
    return changed
