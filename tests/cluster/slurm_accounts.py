"""The accounting database of the virtual cluster: MariaDB and slurmdbd below its folder.

Debian's packages mariadb-server, slurmdbd and slurm-wlm-mysql-plugin.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("mariadbd", "mariadb-install-db", "slurmdbd")
Start = Callable[..., None]


def write_configuration(folder: Path, ports: tuple[int, int], user: str) -> str:
    """Write slurmdbd's configuration; return the lines that slurm.conf has for it.

    Parameters
    ----------
    folder : Path
        Of the cluster.
    ports : tuple of (int, int)
        Of MariaDB and of slurmdbd.
    user : str
    """
    path = folder / "slurmdbd.conf"
    path.write_text(f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
DbdHost={socket.gethostname().split(".")[0]}
DbdAddr=127.0.0.1
DbdPort={ports[1]}
SlurmUser={user}
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[0]}
StorageUser=slurm
StorageLoc=accounts
""")
    path.chmod(0o600)
    (folder / "mariadb.port").write_text(str(ports[0]))
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[1]}
AccountingStoragePass={folder}/run/munge.socket
AccountingStorageEnforce=associations,limits,qos
"""


def are_wanted(folder: Path) -> bool:
    """Whether the cluster of a folder keeps accounts."""
    return (folder / "slurmdbd.conf").exists()


def start_daemons(folder: Path, start: Start, user: str) -> None:
    """Start both, and wait until they answer.

    Parameters
    ----------
    folder : Path
    start : callable
        Of the folder, a program and its arguments.
    user : str
    """
    data = folder / "mariadb"
    install = shutil.which("mariadb-install-db")
    assert install is not None
    subprocess.run(
        [
            install, "--no-defaults", f"--user={user}", f"--datadir={data}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    start(
        folder, "mariadbd", "--no-defaults", f"--user={user}", f"--datadir={data}",
        "--bind-address=127.0.0.1", f"--port={(folder / 'mariadb.port').read_text()}",
        f"--socket={folder}/run/mariadb.socket", f"--pid-file={folder}/run/mariadb.pid",
        f"--log-error={folder}/log/mariadb.log", "--skip-grant-tables",
        "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0",
    )  # fmt: skip
    while not (folder / "run/mariadb.socket").exists():
        time.sleep(0.05)
    start(folder, "slurmdbd", "-D")
    while not _knows(folder, "show", "tres"):
        time.sleep(0.1)
    # The controller ends at once if its cluster is not known.
    for entry in ("cluster virtual", "account lab", f"user {user} account=lab"):
        _knows(folder, "add", *entry.split())


def _knows(folder: Path, *arguments: str) -> bool:
    command = (folder / "bin/sacctmgr", "--immediate", *arguments)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
