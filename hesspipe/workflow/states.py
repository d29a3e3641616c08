"""Check that saved states are those of the users' networks, before any job starts."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from hesspipe.config.experiments import SavedState, UserModel
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.schema import Config


def unfit_states(config: Config) -> Iterator[str]:
    """Find saved states that do not fit into the network of their experiment.

    A state is read once: no more when there is a checkpoint of it. A network that cannot be built
    without memory is left to the job.

    Yields
    ------
    str
        A line for each: the key, the file, and what does not fit.
    """
    for name, plan in config.experiments.items():
        if not isinstance(plan.training, SavedState) or not isinstance(plan.model, UserModel):
            continue
        path = plan.training.path
        checkpoint = ResultKey(ResultKind.CHECKPOINTS, name, plan.seeds[0], 0).path
        if Path(checkpoint).is_file() and os.stat(path).st_mtime <= os.stat(checkpoint).st_mtime:
            continue
        if mistake := _mistake(plan.model, path):
            yield f"experiments.{name}.training.path: {mistake}"


def _mistake(model: UserModel, path: str) -> str | None:
    import torch
    from torch import nn

    from hesspipe.imports import call_function
    from hesspipe.networks.saved_states import fitting_state, read_state

    # What the file is read from is said in the log of the job.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            with torch.device("meta"):
                network = call_function(model.function, model.arguments)
        except Exception:  # a user function may raise anything
            network = None
        try:
            if isinstance(network, nn.Module):
                fitting_state(network, path)
            else:
                read_state(path)
        except ValueError as error:
            return str(error)
    return None
