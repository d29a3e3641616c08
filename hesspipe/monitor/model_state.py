"""The model in training, as the objective sees it: its tensors are copied into the objective."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hesspipe.monitor.changed_models import Structure, has_same_loss
from hesspipe.objective.flattening import flatten
from hesspipe.objective.model_kinds import unwrapped
from hesspipe.objective.objective import Objective
from hesspipe.objective.pytrees import cast

# Part of the names of parameters of compiled submodules.
_WRAPPER = "_orig_mod."


class ModelState:
    """Gives the objective at the present parameters, buffers and frozen parameters of a model.

    Parameters
    ----------
    objective : Objective
    model : nn.Module
        With parameters of the names and shapes of the objective's. It is only read.

    Raises
    ------
    ValueError
        If it lacks one.
    """

    def __init__(self, objective: Objective, model: nn.Module) -> None:
        self._objective, self._model = objective, model
        structure, varied = objective.model, set(objective.names)
        every = [name for name, _ in (*structure.named_parameters(), *structure.named_buffers())]
        self._constants = [name for name in every if name not in varied]
        named = self._named()
        self._frozen = [
            name
            for name in self._constants
            if isinstance(named.get(name), nn.Parameter) and not named[name].requires_grad
        ]
        self._require_parameters(named)
        self._structure = Structure(self._inner())

    def objective(self) -> Objective:
        """Copy the objective with theta and the constants of now.

        Raises
        ------
        ValueError
            If the model has lost a parameter, or has one of another shape.
        """
        named, objective = self._named(), self._objective
        self._require_parameters(named)

        def converted(name: str) -> Tensor:
            return cast(named[name].detach(), objective.dtype, objective.device)

        with torch.inference_mode(False):  # its tensors could not be differentiated
            constants = {name: converted(name).clone() for name in self._constants if name in named}
            theta = flatten({name: converted(name) for name in objective.names})  # a copy
            return objective.at(theta, constants)

    def parameters(self) -> list[Tensor]:
        """Return the parameters of theta, as the optimizer has them, in its order."""
        named = self._named()
        return [named[name] for name in self._objective.names]

    def thawed(self) -> list[str]:
        """Names of parameters that were frozen when the monitor was built, and are not now."""
        named = self._named()
        return [name for name in self._frozen if name in named and named[name].requires_grad]

    def notes(self) -> list[str]:
        """Say where the objective does not follow the model."""
        found = []
        if thawed := self.thawed():
            found.append(
                f"the objective holds {', '.join(thawed)} constant, frozen when it was built, and "
                "the training varies it now; build a new Objective and a new Monitor for the "
                "curvature in all parameters"
            )
        model = self._inner()
        changed = self._structure.changed(model)
        if changed and not has_same_loss(self.objective(), model):
            found.append(
                "the objective computes what the model did when the monitor was built, and the "
                f"model has another loss now, with a change of {', '.join(changed)}; make what "
                "varies a parameter or a buffer, which each record copies, or build a new "
                "Objective and a new Monitor"
            )
        return found

    def _inner(self) -> nn.Module:
        """Find the model of the objective.

        Averages of weights and other wrappers have it as their `module`.
        """
        model, first = unwrapped(self._model), self._objective.names[0]
        while first not in dict(model.named_parameters(remove_duplicate=False)):
            inner = getattr(model, "module", None)
            if not isinstance(inner, nn.Module):
                break
            model = unwrapped(inner)
        return model

    def _named(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model, by their names in the objective."""
        model = self._inner()
        every = (
            *model.named_buffers(remove_duplicate=False),
            *model.named_parameters(remove_duplicate=False),
        )
        return {name.replace(_WRAPPER, ""): tensor for name, tensor in every}

    def _require_parameters(self, named: Mapping[str, Tensor]) -> None:
        objective = self._objective
        for name, shape in zip(objective.names, objective.shapes, strict=True):
            if name not in named or named[name].shape != shape:
                what = f"shape {tuple(named[name].shape)}" if name in named else "none"
                raise ValueError(
                    f"model must have the parameters of the objective, such as {name} of shape "
                    f"{tuple(shape)}, got {what}; pass the model, or the part of it, that the "
                    "Objective was built from"
                )
