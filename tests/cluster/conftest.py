"""One cluster for all tests, which only `make test-cluster` runs: they take minutes."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import slurm_accounts
from slurm_cluster import SlurmCluster, missing_daemons

PLUGIN = "snakemake_executor_plugin_slurm"


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> None:
    """Skip what needs Slurm where it is not installed, or was not asked for."""
    if not any("cluster" in argument for argument in request.config.args):
        pytest.skip("run by make test-cluster")
    if missing := missing_daemons():
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge")
    if importlib.util.find_spec(PLUGIN) is None:
        pytest.skip(f"{PLUGIN} not installed: pip install 'hesspipe[slurm]'")


@pytest.fixture(scope="session")
def cluster(installed: None) -> Iterator[SlurmCluster]:
    """Two virtual nodes."""
    with _cluster(keeps_accounts=False) as found:
        yield found


@pytest.fixture(scope="session")
def cluster_with_accounts(installed: None) -> Iterator[SlurmCluster]:
    """Two others, with accounting."""
    if missing := missing_daemons(slurm_accounts.DAEMONS):
        packages = "mariadb-server slurmdbd slurm-wlm-mysql-plugin"
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install {packages}")
    with _cluster(keeps_accounts=True) as found:
        yield found


@contextlib.contextmanager
def _cluster(keeps_accounts: bool) -> Iterator[SlurmCluster]:
    """Start one at a short path, as that of a socket has at most 107 letters."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as folder,
        SlurmCluster.start(Path(folder) / "cluster", keeps_accounts=keeps_accounts) as found,
    ):
        yield found
