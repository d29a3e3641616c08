"""Check that groups of parameters match some in the paper's networks, before any job starts.

`hesspipe.config.checks` does the same for user networks; those of the paper are built in
`hesspipe.networks`, which the configuration does not know.
"""

from __future__ import annotations

from collections.abc import Iterator

from hesspipe.config.experiments import Experiment, UserModel
from hesspipe.config.schema import Config
from hesspipe.config.user_files import unmatched_patterns

# Names of parameters do not depend on the sizes of inputs and outputs.
_IMAGE = (1, 3, 32, 32)
_NUM_OUTPUTS = 2


def unmatched_groups(config: Config) -> Iterator[str]:
    """Find patterns of groups that match no parameter of a network of the paper.

    Yields
    ------
    str
        A line for each: the key, the pattern, and the nearest names of parameters.
    """
    for name, plan in config.experiments.items():
        is_user = isinstance(plan.model, UserModel)
        if plan.matrix_free is not None and plan.matrix_free.groups and not is_user:
            key = f"experiments.{name}.matrix_free.groups"
            yield from unmatched_patterns(key, plan.matrix_free.groups, _parameter_names(plan))


def _parameter_names(plan: Experiment) -> list[str]:
    import torch

    from hesspipe.networks.architectures import build_architecture

    settings = plan.model.model_dump(mode="json", exclude={"initial_std", "initial_gain"})
    network = build_architecture(
        torch.zeros(_IMAGE, dtype=torch.float32, device="cpu"), _NUM_OUTPUTS, **settings
    )
    return [name for name, _ in network.named_parameters()]
