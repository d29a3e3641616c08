"""A Slurm cluster of two virtual nodes on loopback, below one folder, for as long as it is used.

    with SlurmCluster.start(folder) as cluster:
        subprocess.run(["srun", "hostname"], env=cluster.environment())

Run as a program, this module is the keeper of the daemons: their parent, which ends them and every
process of their jobs when its standard input is closed, however the process at the other end of
the pipe has ended. Nothing outside of the folder is read or written but Debian's programs.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import slurm_accounts

DAEMONS = ("munged", "slurmctld", "slurmd")
# Commands that users and the executor call. Each is wrapped to read the configuration of the
# folder: $SLURM_CONF would be enough, had the executor not removed it for the `srun` in a job.
_COMMANDS = (
    "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare",
)  # fmt: skip
# These wait for ten seconds only for a controller that is away.
_QUERIES = ("squeue", "scontrol", "sinfo")
NODES = ("n1", "n2")
_SET_CHILD_SUBREAPER = 36  # of prctl
# Seconds after which what hangs is ended. Nothing waits for a time that a busy machine may need:
# waits end when what they wait for happens, or cannot happen any more.
PATIENCE = 3600.0
_PORTS = range(30_000, 32_768)  # below those that the system gives to any other connection


def _node_of(process: psutil.Process) -> str | None:
    """The virtual node that a process of a job runs on."""
    try:
        return process.environ().get("SLURMD_NODENAME")
    except psutil.Error:
        return None


def _parents(process: psutil.Process) -> list[psutil.Process]:
    """None of a process that has just ended."""
    with contextlib.suppress(psutil.Error):
        return process.parents()
    return []


def _is(process: psutil.Process, name: str, argument: str | None = None) -> bool:
    """Whether a process runs a program, with an argument; not if it has just ended."""
    with contextlib.suppress(psutil.Error):
        return process.name() == name and (argument is None or argument in process.cmdline())
    return False


def missing_daemons(names: tuple[str, ...] = DAEMONS) -> list[str]:
    """Name the programs that are not installed: Debian's packages slurm-wlm and munge."""
    return [name for name in names if _program(name) is None]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin")


@dataclass(frozen=True)
class SlurmCluster:
    """A running cluster.

    Attributes
    ----------
    folder : Path
        Of its configuration, its programs and its logs.
    keeper : Popen
        The parent of the daemons.
    """

    folder: Path
    keeper: subprocess.Popen[bytes]

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, folder: Path, cores_of_node: int = 2, keeps_accounts: bool = False
    ) -> Iterator[SlurmCluster]:
        """Start the daemons and wait until both nodes are idle; end everything at exit."""
        _write_configuration(folder, cores_of_node, keeps_accounts)
        with (folder / "keeper.log").open("wb") as log:
            keeper = subprocess.Popen(
                [sys.executable, __file__, str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        cluster = cls(folder, keeper)
        try:
            cluster.wait_until_idle()
            yield cluster
        finally:
            assert keeper.stdin is not None
            keeper.stdin.close()
            keeper.wait(PATIENCE)

    def environment(self) -> dict[str, str]:
        """The environment of a user of the cluster."""
        return os.environ | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def call(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def states(self) -> dict[str, str]:
        """The state of each node, as `sinfo` prints it."""
        lines = self.call("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T").splitlines()
        pairs = [line.split() for line in lines]
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def wait_until_idle(self) -> None:
        """Wait until both nodes are idle and no job is there."""
        idle = dict.fromkeys(NODES, "idle")
        self._wait_until(lambda: self.states() == idle and not self.call("squeue", "-h").strip())

    def jobs(self) -> dict[str, str]:
        """The node of each job that runs, by its number; not those of the urgent partition."""
        partitions = ("-p", "debug,short")
        lines = self.call("squeue", "-h", *partitions, "-t", "running", "-o", "%i %N").splitlines()
        return dict(line.split() for line in lines if len(line.split()) == 2)

    def processes(self, node: str) -> list[psutil.Process]:
        """Everything that jobs run on a node."""
        ours = psutil.Process(self.keeper.pid).children(recursive=True)
        return [process for process in ours if _node_of(process) == node]

    def kill_node(self, name: str) -> None:
        """End the daemon of a node and everything that runs on it, as a loss of power does.

        The controller is told that the node is down: alone it would find that after SlurmdTimeout,
        which has to be long where a busy machine must not look like a dead one.
        """
        ours = psutil.Process(self.keeper.pid).children(recursive=True)
        jobs = self.processes(name)
        # The daemons first: one that outlives its job tells the controller how the job ended.
        daemons = {
            parent.pid: parent
            for process in jobs
            for parent in _parents(process)
            if _is(parent, "slurmstepd")
        }
        slurmd = [one for one in ours if _is(one, "slurmd", name)]
        for process in [*slurmd, *daemons.values(), *jobs]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.call("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")

    def open_node(self, name: str) -> None:
        """Let a node that is down or drained take jobs again."""
        state = self.states().get(name, "down")
        if state.startswith("down"):
            self.start_node(name)
        elif state.startswith("drain"):
            self.call("scontrol", "update", f"nodename={name}", "state=resume")

    def start_node(self, name: str) -> None:
        """Start the daemon of a node again and wait until it is idle."""
        assert self.keeper.stdin is not None
        self.keeper.stdin.write(f"{name}\n".encode())
        self.keeper.stdin.flush()
        self._wait_until(lambda: self.states().get(name) == "idle")

    def kill_controller(self) -> None:
        """End the controller, as a crash does: no command gets an answer, and jobs go on."""
        for process in psutil.Process(self.keeper.pid).children(recursive=True):
            if _is(process, "slurmctld") or _is(process, "slurmscriptd"):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def start_controller(self, forgets: bool = False) -> None:
        """Start the controller again, and wait until it answers; without its state, it forgets."""
        if forgets:
            shutil.rmtree(self.folder / "state")
            (self.folder / "state").mkdir()
        assert self.keeper.stdin is not None
        self.keeper.stdin.write(b"slurmctld\n")
        self.keeper.stdin.flush()
        self._wait_until(lambda: len(self.states()) == len(NODES))

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end or self.keeper.poll() is not None:
                logs = [path.read_text(errors="replace")[-2000:] for path in self._logs()]
                raise AssertionError(f"the cluster is {self.states()}\n" + "\n".join(logs))
            time.sleep(0.3)

    def _logs(self) -> list[Path]:
        return [*sorted((self.folder / "log").glob("*.log")), self.folder / "keeper.log"]


def _write_configuration(folder: Path, cores_of_node: int, keeps_accounts: bool) -> None:
    for name in ("state", "log", "run", "bin", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    (folder / "run").chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    for name in _COMMANDS:
        if path := _program(name):
            wrapper = folder / "bin" / name
            conf = f"{folder}/{'queries' if name in _QUERIES else 'slurm'}.conf"
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {path} "$@"\n')
            wrapper.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    ports = _free_ports(len(NODES) + 3)
    user = getpass.getuser()
    accounting = "AccountingStorageType=accounting_storage/none\n"
    if keeps_accounts:
        accounting = slurm_accounts.write_configuration(folder, (ports[-2], ports[-3]), user)
    nodes = "".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={cores_of_node} RealMemory=8000 State=UNKNOWN{' Gres=gpu:1' * (name == 'n1')}\n"
        for name, port in zip(NODES, ports, strict=False)
    )
    text = f"""\
ClusterName=virtual
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[-1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=20
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000,sched_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
SlurmdTimeout=3600
BatchStartTimeout=3600
MessageTimeout=100
TCPTimeout=60
UnkillableStepTimeout=600
InactiveLimit=0
KillWait=2
MinJobAge=3600
MaxArraySize=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{accounting}{nodes}PartitionName=DEFAULT Nodes=ALL MaxTime=120 DefaultTime=30 DefMemPerCPU=1000
PartitionName=debug Default=YES PriorityTier=1
PartitionName=short MaxTime=5 PriorityTier=1
PartitionName=urgent PriorityTier=10
"""
    (folder / "slurm.conf").write_text(text)
    (folder / "queries.conf").write_text(text.replace("MessageTimeout=100", "MessageTimeout=10"))
    (folder / "gres.conf").write_text(f"NodeName=n1 Name=gpu File={folder}/gpu0\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nIgnoreSystemd=yes\n")
    for name in ("gpu0", "plugstack.conf"):
        (folder / name).touch()


def _free_ports(number: int) -> list[int]:
    found: set[int] = set()
    while len(found) < number:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            found.add(port)
    return [*found]


def keep(folder: Path) -> None:
    """Run the daemons until standard input is closed; a line on it names a node to start."""
    # Orphans of the daemons become children of this process, so that none escapes.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        run = folder / "run"
        _start(
            folder, "munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
            f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid",
            f"--seed-file={run}/munge.seed", f"--log-file={folder}/log/munged.log",
        )  # fmt: skip
        while not (run / "munge.socket").exists():
            time.sleep(0.05)
        if slurm_accounts.are_wanted(folder):
            slurm_accounts.start_daemons(folder, _start, getpass.getuser())
        for name in ("slurmctld", *NODES):
            _start_daemon(folder, name)
        for line in sys.stdin:
            _start_daemon(folder, line.strip())
    finally:
        _end_all()


def _start_daemon(folder: Path, name: str) -> None:
    """Start the controller, or the daemon of a node."""
    program = ("slurmctld",) if name == "slurmctld" else ("slurmd", "-N", name)
    _start(folder, *program, "-D", "-f", f"{folder}/slurm.conf")


def _start(folder: Path, name: str, *arguments: str) -> None:
    program = _program(name)
    assert program is not None, name
    subprocess.Popen(
        [program, *arguments],
        env=os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end_all() -> None:
    """Kill every descendant, until there is none: jobs, steps and daemons."""
    me = psutil.Process()
    while children := me.children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=1)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
