"""Jobs that are forked: in all that they can see what Snakemake would start, and as easy to end."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesspipe.workflow import starts
from hesspipe.workflow.starts import ForkedJob, Starts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux only")

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SEEN = """
import json, os, random, resource, signal, sys
import numpy as np
seen = {
    "argv": sys.argv, "original": sys.orig_argv, "path": sys.path, "folder": os.getcwd(),
    "environment": dict(os.environ),
    "name": __name__, "file": __file__, "main": sys.modules["__main__"].__file__,
    "executable": sys.executable, "streams": [sys.stdin.name, sys.stdout.name, sys.stderr.name],
    "files": sorted(os.readlink(f"/proc/self/fd/{one}") for one in (0, 1, 2)),
    "others": [one for one in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{one}")
               and int(one) > 2],
    "group": os.getpgid(0), "session": os.getsid(0), "umask": os.umask(0o22), "nice": os.nice(0),
    "handlers": [str(signal.getsignal(one)) for one in sorted(signal.valid_signals() - {9, 19})],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "limits": [resource.getrlimit(one) for one in range(10)], "cpus": os.sched_getaffinity(0),
    "killable": open("/proc/self/oom_score_adj").read(),
    "threads": len(os.listdir("/proc/self/task")), "hesspipe": "hesspipe" in sys.modules,
}
drawn = [random.random(), np.random.rand()]
json.dump([seen, drawn, os.getppid()], open("seen.json", "w"), default=str)
"""


@pytest.fixture(scope="module")
def light_server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The process that forks, with numpy only, as these jobs need no other package."""
    text = Path(starts._SERVER).read_text()
    light, num = re.subn(
        r"_MODULES = \(.*?\n\)", '_MODULES = ("numpy.random",)', text, flags=re.DOTALL
    )
    assert num == 1
    path = tmp_path_factory.mktemp("server") / "fork_server.py"
    path.write_text(light)
    return str(path)


@pytest.fixture
def starter(light_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """What starts jobs in a folder of its own."""
    monkeypatch.setattr(starts, "_SERVER", light_server)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake/scripts").mkdir(parents=True)
    one = Starts()
    yield one
    if one._server is not None:
        one._server._requests.close()
        one._server.process.wait()


def command(text: str, name: str = "job") -> str:
    """What Snakemake would let bash do to run a script."""
    path = Path.cwd() / f".snakemake/scripts/{name}.py"
    path.write_text(text)
    return f"set -euo pipefail;  {sys.executable} {path}"


def options(**changed: Any) -> dict[str, Any]:
    given = {"bufsize": -1, "shell": True, "stdout": None, "universal_newlines": None}
    return given | {"close_fds": True, "executable": "/bin/bash", "env": ENVIRONMENT} | changed


def wait_for(found: Callable[[], Any]) -> Any:
    """Wait until something is true, and give it."""
    end = time.monotonic() + 20
    while not (one := found()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return one


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_forked_job_sees_what_a_started_one_does(starter: Starts) -> None:
    found = []
    for start in (starter.start, starter.start, subprocess.Popen):
        assert start(command(SEEN), **options()).wait() == 0  # type: ignore[operator]
        found.append(json.loads(Path("seen.json").read_text()))
    (forked, drawn, parent), (again, drawn_again, same_parent), (started, _, own_parent) = found
    assert forked == again == started
    assert parent == same_parent != own_parent == os.getpid()
    assert all(one != other for one, other in zip(drawn, drawn_again, strict=True))


@pytest.mark.parametrize(
    "end",
    [
        "", "sys.exit(3)", "sys.exit('a line')", "sys.exit(None)", "1 / 0", "os._exit(7)",
        "raise KeyboardInterrupt", "syntax error", "raise MemoryError",
        "import atexit; atexit.register(os._exit, 4)",
        *(f"os.kill(os.getpid(), {one})" for one in (2, 6, 9, 11, 15)),
        "import ctypes; ctypes.string_at(0)",
    ],
)  # fmt: skip
def test_forked_job_ends_with_the_code_of_a_started_one(starter: Starts, end: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    text = command(f"import os, sys\n{end}")
    job = starter.start(text, **options())
    assert isinstance(job, ForkedJob)
    assert job.wait() == subprocess.Popen(text, **options(), stderr=subprocess.DEVNULL).wait()


def test_job_that_crashes_ends_no_other(starter: Starts) -> None:
    patient = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"
    jobs = [starter.start(command(patient, f"job{number}"), **options()) for number in range(3)]
    crash = starter.start(command("import os; os.kill(os.getpid(), 11)", "crash"), **options())
    assert crash.wait() == -11
    Path("go").touch()
    assert [job.wait() for job in jobs] == [0, 0, 0]


def test_memory_of_a_job_is_not_counted_for_the_next(starter: Starts) -> None:
    peak = (
        "import re\nx = bytearray(b'x') * {}\nfrom pathlib import Path\n"
        "kib = re.search('VmHWM:.* ([0-9]+) kB', Path('/proc/self/status').read_text())[1]\n"
        "Path('peak').write_text(kib)"
    )
    found = []
    for size in (2**28, 1):
        assert starter.start(command(peak.format(size)), **options()).wait() == 0
        found.append(int(Path("peak").read_text()) * 1024)
    assert found[0] > 2**28
    assert found[1] < 2**27


SLEEP = """
import os, time
from pathlib import Path
Path("new").write_text(f"{os.getpid()} {os.getppid()}")
os.rename("new", "running")
while not os.path.exists("go"):
    time.sleep(0.01)
"""


def running() -> list[int]:
    """The job and its parent, once it runs."""
    wait_for(Path("running").exists)
    return [int(word) for word in Path("running").read_text().split()]


def test_jobs_of_a_killed_server_end_and_later_ones_are_started(starter: Starts) -> None:
    job = starter.start(command(SLEEP), **options())
    process, server = running()
    os.kill(server, signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    wait_for(lambda: not is_alive(process))
    assert starter._server is not None
    starter._server.process.wait()
    later = starter.start(command("import sys; sys.exit(3)"), **options())
    assert isinstance(later, subprocess.Popen)
    assert later.wait() == 3


@pytest.mark.parametrize("answered", ["", "started not"])
def test_job_that_was_not_forked_is_started(starter: Starts, answered: str) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, answered.encode())
    os.close(theirs)
    server = subprocess.Popen("exit 0", shell=True)
    job = ForkedJob(ours, command("import sys; sys.exit(5)"), options(), server)
    assert job.wait() == 5
    server.wait()


def test_server_that_has_started_a_thread_forks_nothing(
    starter: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[5], daemon=True).start()"
    )
    text = Path(starts._SERVER).read_text().replace('("numpy.random",)', '("threaded",)')
    (tmp_path / "server.py").write_text(text)
    monkeypatch.setattr(starts, "_SERVER", str(tmp_path / "server.py"))
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}
    job = starter.start(command(SEEN), **options(env=environment))
    assert job.wait() == 0
    assert json.loads(Path("seen.json").read_text())[2] == os.getpid()


@pytest.mark.parametrize(
    "changed",
    [
        {"env": ENVIRONMENT | {"OMP_NUM_THREADS": "2"}},
        {"env": ENVIRONMENT | {"HESSPIPE_DEVICE": "cuda:7"}},
        {"env": {name: ENVIRONMENT[name] for name in ("PATH", "OMP_NUM_THREADS")}},
        {"env": None}, {"stdout": subprocess.PIPE}, {"stdout": subprocess.DEVNULL},
        {"command": "echo a"}, {"command": f"{sys.executable} .snakemake/scripts/a.py"},
        {"command": f"set -euo pipefail; {sys.executable} a.py"},
        {"command": f"set -euo pipefail; {sys.executable} .snakemake/scripts/a.py; true"},
        {"command": "set -euo pipefail; python .snakemake/scripts/a.py"},
        {"command": "set -euo pipefail; echo a # don't"}, {"command": ["echo", "a"]},
    ],
)  # fmt: skip
def test_start_leaves_the_rest_to_subprocess(
    starter: Starts, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    assert starter.start(command("pass"), **options()).wait() == 0
    monkeypatch.setattr(subprocess, "Popen", lambda command, **given: (command, given))
    given = options(**changed)
    wanted = given.pop("command", command("pass"))
    if given["stdout"] == subprocess.DEVNULL:
        given["stdout"] = open(os.devnull, "w")  # noqa: SIM115
    assert starter.start(wanted, **given) == (wanted, given)  # type: ignore[comparison-overlap]
    if hasattr(given["stdout"], "close"):
        given["stdout"].close()


def set_limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_stream(number: int) -> None:
    os.dup2(os.open("other", os.O_RDWR | os.O_CREAT), number)


CHANGES: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "umask": lambda: os.umask(0o77),
    "limit": set_limit,
    "priority": lambda: os.nice(1),
    "processors": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "killability": lambda: Path("/proc/self/oom_score_adj").write_text("500"),
    "ignored": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    "handled": lambda: signal.signal(signal.SIGUSR1, lambda *_: None),
    "group": lambda: os.setpgid(0, 0),
    "session": os.setsid,
    "folder": lambda: os.chdir("elsewhere"),
    "input": lambda: set_stream(0),
    "output": lambda: set_stream(1),
    "errors": lambda: set_stream(2),
    "locale": lambda: os.environ.__setitem__("LC_ALL", "C"),
    "threads": lambda: os.environ.__setitem__("MKL_NUM_THREADS", "3"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "stdin": {"stdin": subprocess.DEVNULL},
    "stderr": {"stderr": subprocess.DEVNULL},
    "cwd": {"cwd": "elsewhere"},
    "umask": {"umask": 0o70},
    "before": {"preexec_fn": lambda: os.nice(1)},
    "buffers": {"bufsize": 0},
}


@pytest.mark.parametrize("change", [*CHANGES, *(f"option {name}" for name in OPTIONS)])
def test_job_after_a_change_sees_what_a_started_one_does(starter: Starts, change: str) -> None:
    text = command(SEEN.replace("import numpy as np\n", "").replace(", np.random.rand()", ""))
    Path("elsewhere").mkdir()
    given = options(env=dict(os.environ | ENVIRONMENT))
    assert starter.start(text, **given).wait() == 0
    process = os.fork()  # what is changed here stays here
    if process:
        assert os.waitpid(process, 0)[1] == 0, Path("told").read_text()
        return
    try:
        CHANGES.get(change, int)()
        given = options(env=dict(os.environ | {"OMP_NUM_THREADS": "1"}))
        given |= OPTIONS.get(change.removeprefix("option "), {}) if " " in change else {}
        found = []
        for start in (starter.start, subprocess.Popen):
            assert start(text, **given).wait() == 0  # type: ignore[operator]
            path = Path(given.get("cwd", "."), "seen.json")
            found.append(json.loads(path.read_text())[0])
        told = {name: [one[name] for one in found] for name in found[0]}
        told = {name: pair for name, pair in told.items() if pair[0] != pair[1]}
    except BaseException as error:  # pytest must not go on in this process
        told = {"error": [repr(error)]}
    Path("told").write_text(json.dumps(told))
    os._exit(bool(told))


@pytest.mark.parametrize("code", [0, 1, -9, *(-one for one in (1, 2, 3, 15))])
def test_end_of_the_server_before_a_job_begins_ends_it_only_by_a_signal_to_all(
    starter: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    server = tmp_path / "server.py"
    end = f"os._exit({code})" if code >= 0 else f"os.kill(os.getpid(), {-code})"
    server.write_text(f"import os, signal\nsignal.signal(2, signal.SIG_DFL)\n{end}")
    monkeypatch.setattr(starts, "_SERVER", str(server))
    job = starter.start(command("import sys; open('ran', 'w'); sys.exit(5)"), **options())
    assert job.wait() == (5 if code in (0, 1, -9) else code)
    assert Path("ran").exists() == (code in (0, 1, -9))


@pytest.mark.parametrize("limit", [3, 4, 5, 6])
def test_server_that_may_open_no_more_files_leaves_the_job_to_be_started(
    starter: Starts, light_server: str, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    lowered = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    server = Path.cwd() / "server.py"
    server.write_text(Path(light_server).read_text().replace("gc.freeze()", lowered))
    monkeypatch.setattr(starts, "_SERVER", str(server))
    monkeypatch.setattr(starts, "_PATIENCE", 0.1)
    assert starter.start(command("open('ran', 'a').write('once')"), **options()).wait() == 0
    assert Path("ran").read_text() == "once"


def test_system_that_does_not_tell_the_end_of_a_process_starts_its_jobs(
    starter: Starts, light_server: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server = Path.cwd() / "server.py"
    without = "import os\ndef absent(process): raise OSError(38, 'not implemented')\n"
    text = Path(light_server).read_text()
    text = text.replace("import os\n", f"{without}os.pidfd_open = absent\n")
    server.write_text(text)
    monkeypatch.setattr(starts, "_SERVER", str(server))
    assert starter.start(command("open('ran', 'w')"), **options()).wait() == 0
    assert Path("ran").exists()
    assert capfd.readouterr().err == ""


def test_job_finds_a_module_that_was_added_within_a_tick_of_the_clock(starter: Starts) -> None:
    Path("modules").mkdir()
    times = Path("modules").stat()
    given = options(env=ENVIRONMENT | {"PYTHONPATH": str(Path("modules").resolve())})
    assert starter.start(command("pass"), **given).wait() == 0
    Path("modules/added.py").write_text("")
    os.utime("modules", ns=(times.st_atime_ns, times.st_mtime_ns))
    job = starter.start(command("import added"), **given)
    assert isinstance(job, ForkedJob)
    assert job.wait() == 0


def test_text_that_an_import_has_printed_is_not_printed_by_each_job(
    starter: Starts, light_server: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("telling.py").write_text("print('TOLD', end='')")
    server = Path.cwd() / "server.py"
    server.write_text(Path(light_server).read_text().replace("numpy.random", "telling"))
    monkeypatch.setattr(starts, "_SERVER", str(server))
    given = options(env=ENVIRONMENT | {"PYTHONPATH": str(Path.cwd()), "PYTHONUNBUFFERED": ""})
    jobs = [starter.start(command("pass"), **given) for _ in range(3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    assert capfd.readouterr().out.count("TOLD") == 1


@pytest.mark.parametrize("name", ["with a space", "it's", 'a "quote"', "Ünïcödé 試", "a$b;c"])
def test_job_in_a_folder_of_any_name_is_forked(
    starter: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name / ".snakemake/scripts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    path = Path.cwd() / ".snakemake/scripts/job.py"
    path.write_text("import sys; open('ran', 'w').write(sys.argv[0])")
    job = starter.start(
        f"set -euo pipefail;  {sys.executable} {shlex.quote(str(path))}", **options()
    )
    assert isinstance(job, ForkedJob)
    assert job.wait() == 0
    assert Path("ran").read_text() == str(path)


def test_start_forks_for_the_folder_of_the_first_job_only(
    starter: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = command("pass")
    first = starter.start(text, **options())
    monkeypatch.chdir("/")
    second = starter.start(text, **options())
    assert isinstance(first, ForkedJob)
    assert isinstance(second, subprocess.Popen)
    assert [first.wait(), second.wait()] == [0, 0]


MAIN = """
import os, signal, sys
from pathlib import Path
from hesspipe.workflow import starts
starts._SERVER = sys.argv[1]
starter = starts.Starts()
options = {"shell": True, "executable": "/bin/bash", "env": os.environ | {"OMP_NUM_THREADS": "1"}}
job = starter.start(sys.argv[2], **options)
signal.signal(signal.SIGINT, lambda *_: None)
signal.signal(signal.SIGTERM, lambda *_: None)
Path("code").write_text(str(job.wait()))
os.unlink("running")
Path("go").touch()
Path("second").write_text(str(starter.start(sys.argv[2], **options).wait()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_to_all_processes_of_a_run_ends_its_jobs_as_if_started(
    starter: Starts, light_server: str, number: signal.Signals
) -> None:
    main = MAIN.replace("signal.SIGTERM, lambda", f"signal.{number.name}, lambda")
    run = subprocess.Popen(
        [sys.executable, "-c", main, light_server, command(SLEEP)], start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, server = running()
    os.killpg(run.pid, number)
    wait_for(Path("second").exists)
    assert Path("code").read_text() == str(-number)
    assert running()[1] == server, "the server has ended with the first job"
    assert run.wait() == 0
    assert Path("second").read_text() == "0"
    wait_for(lambda: not is_alive(server))


def test_jobs_of_a_killed_run_go_on_as_if_started(starter: Starts, light_server: str) -> None:
    text = command(SLEEP + "Path('done').touch()")
    run = subprocess.Popen([sys.executable, "-c", MAIN, light_server, text], start_new_session=True)
    process, server = running()
    run.kill()
    run.wait()
    time.sleep(0.1)
    assert is_alive(process)
    Path("go").touch()
    wait_for(Path("done").exists)
    wait_for(lambda: not is_alive(server))
    wait_for(lambda: not is_alive(process))


def test_killing_a_whole_run_leaves_no_process(starter: Starts, light_server: str) -> None:
    arguments = [sys.executable, "-c", MAIN, light_server, command(SLEEP)]
    run = subprocess.Popen(arguments, start_new_session=True)
    processes = running()
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    for process in processes:
        wait_for(lambda process=process: not is_alive(process))


def test_server_ends_where_nobody_asks(light_server: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        arguments = [sys.executable, "-P", light_server, str(theirs.fileno())]
        server = subprocess.Popen(arguments, pass_fds=[theirs.fileno()])
    assert server.wait() == 0


SNAKEFILE = """
from hesspipe.workflow.starts import fork_jobs
fork_jobs()
rule all:
    input: expand("{number}.json", number=range(3)), "own.txt"
rule one:
    output: "{number}.json"
    threads: lambda wildcards: 1 + (wildcards.number == "2")
    script: "job.py"
rule own:
    output: "own.txt"
    shell: "echo $PPID > {output}"
"""
JOB = """
import json, os, sys
known = sorted({name.partition(".")[0] for name in sys.modules})
json.dump([os.getppid(), known], open(snakemake.output[0], "w"))
print("said"); print("told", file=sys.stderr)
"""


def test_snakemake_forks_the_scripts_of_one_thread(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "job.py").write_text(JOB)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--scheduler", "greedy"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, several = (
        json.loads((tmp_path / f"{number}.json").read_text()) for number in range(3)
    )
    main = int((tmp_path / "own.txt").read_text())
    assert first[0] == second[0] != main == several[0]
    assert {"torch", "pandas", "pyarrow", "scipy"} <= set(first[1])
    assert "hesspipe" not in first[1]
    assert "torch" not in several[1]
    # Jobs side by side may write their ends of lines later.
    assert done.stdout.count("said") == 3
    assert done.stderr.count("told") == 3
