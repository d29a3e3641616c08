"""Whole runs of Snakemake in forked processes: kill them, and run again.

Snakemake starts each job as `python <script>`. Here that is a small client, which asks this
process to fork the job into its process group: a job then starts in no time, and a signal to the
group reaches Snakemake, the client and the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import forks
import tiny
from cases import Case, Verdict, survived

TARGETS = [
    "figures/ordered.pdf", "results/eigenpairs/user/seed0/step2_hessian.parquet",
    "results/densities/saved/seed0/step0_hessian_network.parquet",
]  # fmt: skip
# Seconds until SIGKILL follows, as from a batch system. Snakemake may need it: its handler of
# SIGTERM takes a lock, which the interrupted code may hold.
_GRACE = 30.0
_SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
_CLIENT = """#!{python} -ISE
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["FAULTS_SOCKET"])
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [len(asked).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(asked)
code = connection.recv(16)
os._exit(int(code or b"1"))
"""


class Run:
    """A run of Snakemake in a folder.

    Parameters
    ----------
    workshop : Workshop
    folder : Path
    *arguments : str
        More arguments of Snakemake.
    die_at : tuple of int
        A process, 0 for Snakemake and from 1 in the order in which it starts them, and the number
        of its change of a file at which all are killed; 0 for none.

    Attributes
    ----------
    code : int
        Its exit code, after the end.
    modules : list of str
        What it imported.
    """

    def __init__(
        self,
        workshop: tiny.Workshop,
        folder: Path,
        *arguments: str,
        die_at: tuple[int, int] = (0, 0),
    ) -> None:
        self.code: int | None = None
        self.modules: list[str] = []
        self._die_at, self._num_started = die_at, 0
        self._changes_of_snakemake: list[str] = []
        place = self._place = folder.parent / f"{folder.name}-run{time.monotonic_ns()}"
        place.mkdir()
        self._log, self._client = place / "log", place / "python"
        self._client.write_text(_CLIENT.format(python=sys.executable), encoding="utf-8")
        self._client.chmod(0o755)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(place / "s"))
        self._server.listen()
        self._jobs: dict[socket.socket, int] = {}
        snakefile = workshop.root / "source/Snakefile"
        command = ["--snakefile", str(snakefile), "--cores", "1", *arguments, "--", *TARGETS]
        body = partial(_snakemake, command, self._client, place / "s", self._log)
        own = die_at[1] if die_at[0] == 0 else 0
        self._process = forks.Process(body, folder, group=True, record=True, die_at=own)

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @property
    def changes(self) -> list[tuple[int, int, str]]:
        """The changes of files of each process, after the end: process, number, and change."""
        found = {0: self._changes_of_snakemake}
        for process in range(1, self._num_started + 1):
            path = self._place / f"changes{process}"
            found[process] = json.loads(path.read_text()) if path.exists() else []
        return [
            (process, number, change)
            for process, changes in found.items()
            for number, change in enumerate(changes, 1)
        ]

    def kill(self, number: int) -> None:
        """Send a signal to Snakemake and its jobs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def has_ended(self) -> bool:
        """Whether Snakemake and its jobs have."""
        self._reap()
        if self.code is None and self._process.has_ended():
            ended = self._process.wait()
            self.code, self.modules = ended.code, ended.modules
            self._changes_of_snakemake = ended.changes
        return self.code is not None and not self._jobs

    def serve(self, seconds: float) -> bool:
        """Start the jobs that Snakemake asks for, for a time; return whether all has ended."""
        end = time.monotonic() + seconds
        while not self.has_ended():
            remaining = end - time.monotonic()
            if remaining <= 0:
                return False
            ready, _, _ = select.select([self._server], [], [], min(remaining, 0.005))
            if ready:
                self._start(self._server.accept()[0])
        return True

    def _start(self, connection: socket.socket) -> None:
        header, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
        size, asked = int.from_bytes(header, "big"), b""
        while len(asked) < size and (part := connection.recv(size - len(asked))):
            asked += part
        if len(header) == 8 and len(asked) == size and len(descriptors) == 3:
            arguments, folder, environment = json.loads(asked)
            self._num_started += 1
            process, number = self._die_at
            watch = (
                number if process == self._num_started else 0,
                self._place / f"changes{self._num_started}",
            )
            pid = os.fork()
            if pid == 0:
                _be_job(arguments, folder, environment, descriptors, self._process.pid, watch)
            self._jobs[connection] = pid
        else:
            connection.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self) -> None:
        for connection, pid in list(self._jobs.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._jobs[connection]
                code = abs(os.waitstatus_to_exitcode(status))
                with contextlib.suppress(OSError):  # its client may have been killed
                    connection.sendall(str(code).encode())
                connection.close()


def run(
    workshop: tiny.Workshop, folder: Path, *arguments: str, die_at: tuple[int, int] = (0, 0)
) -> Run:
    """Run Snakemake to its end."""
    one = Run(workshop, folder, *arguments, die_at=die_at)
    one.serve(forks.PATIENCE)
    one.kill(signal.SIGKILL)
    one.serve(5.0)
    return one


def reference(workshop: tiny.Workshop) -> dict[str, str]:
    """Run Snakemake undisturbed in the folder `whole`, once, and list the files."""
    folder = workshop.root / "whole"
    if not folder.exists():
        workshop.folder("whole")
        one = run(workshop, folder)
        assert one.code == 0, one.output
        forks.preload(one.modules)
    return tiny.contents(folder)


def plan(workshop: tiny.Workshop, number: int, draw: random.Random) -> Iterator[Case]:
    """Yield `number` kills at random moments, and half as many at changes of files."""
    if not number:
        return
    expected = reference(workshop)
    started = time.monotonic()
    assert run(workshop, workshop.folder("timed")).code == 0
    seconds = time.monotonic() - started
    for _ in range(number // 50):
        body = partial(_kill_unforked, workshop, expected, draw.uniform(5, 25))
        yield Case("whole runs without forks ended by SIGKILL", str(body.args[-1]), body)
    for _ in range(number):
        one, moment = draw.choice(_SIGNALS), draw.uniform(0.05, 1.05) * seconds
        body = partial(_kill, workshop, expected, one, moment)
        yield Case(
            f"whole runs ended by {one.name}", f"after {moment:.3f} s of {seconds:.3f} s", body
        )
    yield from _plan_changes(workshop, number // 2, draw, expected)


def _plan_changes(
    workshop: tiny.Workshop, number: int, draw: random.Random, expected: dict[str, str]
) -> Iterator[Case]:
    """Yield kills in the middle of jobs, and while files are adopted and set aside at the start."""
    for is_foreign in (False, True):
        folder = workshop.folder("watched")
        wanted = expected
        if is_foreign:
            _add_foreign(workshop, folder)
        one = run(workshop, folder)
        assert one.code == 0, one.output
        points = [point for point in one.changes if _is_of_phase(point, is_foreign)]
        if is_foreign:
            wanted = tiny.contents(folder)
        for point in draw.sample(points, min(number // 2, len(points))):
            again = draw.choice(points)
            body = partial(_kill_at_changes, workshop, wanted, [point, again], is_foreign)
            kind = "files are set aside" if is_foreign else "jobs write"
            told = " and ".join(f"{one[2]} (process {one[0]}, {one[1]})" for one in (point, again))
            yield Case(f"whole runs killed at a change of a file while {kind}", told, body)


def _is_of_phase(point: tuple[int, int, str], is_foreign: bool) -> bool:
    """Whether a change belongs to the start, where files are judged, or to a job."""
    process, _, change = point
    path = change.split(" ", 1)[1]
    if is_foreign:
        return process == 1 or (process == 0 and path.startswith((".hesspipe", "results")))
    return process > 0 and not path.startswith("logs")


def _add_foreign(workshop: tiny.Workshop, folder: Path) -> None:
    """Add files that no job here has written: to be adopted, made again, and left over."""
    from hesspipe.workflow.origins import tracked_path

    kept = "results/datasets/clusters.safetensors"
    other = "results/histories/one/seed0.parquet"
    for path in (kept, str(tracked_path(kept)), other):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(workshop.finished / path, folder / path)
    for path in ("results/spectra/old/seed0/step0_hessian.parquet", "tables/old.csv"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("of another project")


def _kill_at_changes(
    workshop: tiny.Workshop,
    expected: dict[str, str],
    points: list[tuple[int, int, str]],
    is_foreign: bool,
    name: str,
) -> Verdict:
    folder = workshop.folder(name)
    if is_foreign:
        _add_foreign(workshop, folder)
    for process, number, _ in points:
        run(workshop, folder, die_at=(process, number))
        run(workshop, folder, "--unlock")
    again = run(workshop, folder)
    if again.code:
        return Verdict("failed", again.output[-1500:])
    return survived(folder, expected)


def _kill(
    workshop: tiny.Workshop, expected: dict[str, str], number: int, moment: float, name: str
) -> Verdict:
    folder = workshop.folder(name)
    first = Run(workshop, folder)
    first.serve(moment)
    first.kill(number)
    if not first.serve(_GRACE):
        first.kill(signal.SIGKILL)
        first.serve(5.0)
    again = run(workshop, folder)
    if again.code and "--unlock" in again.output:
        run(workshop, folder, "--unlock")
        again = run(workshop, folder)
    if again.code:
        return Verdict("failed", again.output[-1500:])
    return survived(folder, expected)


def _kill_unforked(
    workshop: tiny.Workshop, expected: dict[str, str], moment: float, name: str
) -> Verdict:
    """Do the same with Snakemake itself, which starts each job anew."""
    folder = workshop.folder(name)
    snakefile = str(workshop.root / "source/Snakefile")
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--cores", "1"]
    quiet: dict[str, Any] = {
        "cwd": folder,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    first = subprocess.Popen([*command, "--", *TARGETS], start_new_session=True, **quiet)
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run([*command, "--unlock"], check=False, **quiet)
    again = subprocess.run([*command, "--", *TARGETS], check=False, **quiet)
    if again.returncode:
        return Verdict("failed", f"exit {again.returncode}")
    return survived(folder, expected)


def _snakemake(command: list[str], client: Path, address: Path, log: Path) -> None:
    """Be Snakemake in a forked process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.executable = str(client)
    os.environ["FAULTS_SOCKET"] = str(address)
    from snakemake.cli import main

    sys.argv = ["snakemake", *command]
    try:
        main(command)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _be_job(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    descriptors: list[int],
    group: int,
    watch: tuple[int, Path],
) -> None:
    """Be a job: never returns."""
    code = 1
    changes: list[str] = []
    try:
        forks.die_with_parent()
        try:
            os.setpgid(0, group)
        except ProcessLookupError:  # Snakemake has ended
            os._exit(1)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        changes = forks.watch_changes(watch[0], group=True)
        try:
            forks.run_script(arguments)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        watch[1].write_text(json.dumps(changes[:]))
        os._exit(code)
