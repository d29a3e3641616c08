"""The command `hesspipe`: a project of your own, and the workflow in it.

    hesspipe new FOLDER
    cd FOLDER
    hesspipe run

`hesspipe check` reads the configuration only, and `hesspipe verify` every result that is stored.
The project is the current folder. The Snakefile, its rules and its scripts are those of the
installed package, or of the clone that it is installed from.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hesspipe.errors import ConfigError
from hesspipe.files import require_writable
from hesspipe.workflow.failures import one_line_errors

if TYPE_CHECKING:
    from hesspipe.config.schema import Config

_CONFIG = "config.yaml"
_EXAMPLE = "examples/first_steps"
_NEEDED = ("snakemake", "pydantic", "yaml", "pandas", "pyarrow", "matplotlib", "jinja2")
_PROFILES = ("--workflow-profile", "--profile")
_DRY_RUNS = frozenset({"-n", "--dry-run", "--dryrun"})
_OTHER_PLACES = ("-d", "--directory", "--configfile", "--configfiles", "--config", "-C")


def workflow_folder() -> Path:
    """Locate the Snakefile's folder: in the package, or the clone of an editable install."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_workflow", package.parent):
        if (folder / "Snakefile").is_file():
            return folder
    raise ConfigError(
        f"the workflow is not installed: {package} has no _workflow/Snakefile; install hesspipe "
        "from a wheel, or a clone of it with pip install -e"
    )


def new(folder: Path) -> None:
    """Write a small project that runs, to be changed step by step.

    Raises
    ------
    ConfigError
        If the folder has files in it, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        state = "is a file" if folder.is_file() else "has files in it"
        raise ConfigError(f"{folder} must be a new or an empty folder, but it {state}")
    source = workflow_folder() / _EXAMPLE
    names = sorted(path.name for path in source.iterdir() if path.is_file())
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, folder / name)  # without the mode of a read-only package
    place = f"./{folder}" if str(folder).startswith("-") else str(folder)
    is_here = folder.resolve() == Path.cwd()
    change = "" if is_here else f"cd {shlex.quote(place)} && "
    print(f"{folder}: {', '.join(names)}\nNext: {change}hesspipe run")


def check() -> None:
    """Check the configuration in the current folder, and the functions that it names.

    No job is started; modules of the user are imported, and networks built without memory.
    """
    from hesspipe.workflow.groups import unmatched_groups
    from hesspipe.workflow.states import unfit_states
    from hesspipe.workflow.user_functions import unusable_functions

    config = _config()
    mistakes = [*unusable_functions(config)]
    if mistakes := mistakes or [*unmatched_groups(config), *unfit_states(config)]:
        raise ConfigError("\n".join(f"{_CONFIG}: {line}" for line in mistakes))
    print(f"{_CONFIG} has no errors")


def verify() -> NoReturn:
    """Check every stored result in the current folder, and exit with 1 if one is not intact."""
    _config()
    from hesspipe.workflow.verify import verify

    raise SystemExit(not verify(str(workflow_folder() / "Snakefile"), []))


def run(targets: Sequence[str], cores: str | None, options: Sequence[str]) -> NoReturn:
    """Run the workflow in the current folder, and exit as Snakemake does.

    Parameters
    ----------
    targets : sequence of str
        Files, or names of stages; all by default.
    cores : str or None
        A number, or "all"; None for what a profile says, or all without one.
    options : sequence of str
        More options of Snakemake.

    Raises
    ------
    ConfigError
        If there is no valid configuration here, a target or a number of
        cores is none, or a configuration that `options` name cannot be read.
    UnwritableFileError
        If the folder cannot be written.
    """
    from hesspipe.config.yaml_files import read_yaml

    if cores not in (None, "all") and not (cores.isdecimal() and int(cores) > 0):
        raise ConfigError(f"--cores must be a positive number or all, got {cores!r}")
    # Before Snakemake's own reader, which fills memory with aliases and runs code in templates.
    for path in _configfiles(options):
        read_yaml(path)
    config = None
    if not any(option.split("=")[0] in _OTHER_PLACES for option in options):
        config = _config()
        targets = [_inside(target) for target in targets]
        _require_targets(targets, config)
        require_writable([Path.cwd(), *filter(Path.is_dir, Path(".snakemake").rglob("*"))])
    from snakemake.cli import main

    # A module of the project must not be taken for one of the same name that Snakemake imports.
    os.environ["PYTHONSAFEPATH"] = "1"
    snakefile = str(workflow_folder() / "Snakefile")
    if cores is None and not any(option.split("=")[0] in _PROFILES for option in options):
        cores = "all"
    arguments = ["--snakefile", snakefile, *(["--cores", cores] if cores else []), *options]
    arguments += ["--", *targets] if targets else []
    sys.argv = ["snakemake", *arguments]  # the workflow reads its targets there
    try:
        main(arguments)
    except SystemExit as ended:
        if ended.code:
            raise
    if config is not None and not targets and not _DRY_RUNS.intersection(options):
        print(_places(config), file=sys.stderr)
    raise SystemExit(0)


def _places(config: Config) -> str:
    """Say where the figures and tables of a finished run are."""
    counts = [
        f"{len(entries)} {name if len(entries) == 1 else f'{name}s'} in {name}s/"
        for name, entries in (("figure", config.figures), ("table", config.tables))
        if entries
    ]
    return f"Up to date: {', '.join([*counts, 'the numbers behind them in results/'])}"


def _require_workflow() -> None:
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"the workflow needs {', '.join(missing)}; run: pip install 'hesspipe[workflow]'"
        )


def _configfiles(options: Iterable[str]) -> list[str]:
    """List the files that follow --configfile, which Snakemake reads before the Snakefile."""
    found: list[str] = []
    is_file = False
    for option in options:
        name, sign, value = option.partition("=")
        if option.startswith("-"):
            is_file = len(name) > len("--config") and "--configfiles".startswith(name)
            found += [value] * bool(is_file and sign)
        elif is_file:
            found.append(option)
    return found


def _config() -> Config:
    """Read the configuration in the current folder."""
    from hesspipe.config.loading import load_config

    here = Path.cwd()
    if Path(_CONFIG).is_file():
        return load_config(_CONFIG)
    above = next((folder for folder in here.parents if (folder / _CONFIG).is_file()), None)
    advice = (
        "make a project with: hesspipe new FOLDER"
        if above is None
        else f"run: cd {shlex.quote(str(above))} && hesspipe run"
    )
    raise ConfigError(f"{_CONFIG} must be in the current folder, {here}, which has none; {advice}")


def _inside(target: str) -> str:
    """Write a path as the configuration does: relative to the current folder."""
    path = Path(target)
    if path.is_absolute() and path.resolve().is_relative_to(Path.cwd()):
        path = path.resolve().relative_to(Path.cwd())
    return os.path.normpath(path)


def _require_targets(targets: Iterable[str], config: Config) -> None:
    """Refuse what no job makes, with the nearest names."""
    from hesspipe.workflow.project import Project
    from hesspipe.workflow.stages import STAGES

    files = Project(config, str(workflow_folder())).products() if targets else set()
    known = {*files, *STAGES, "all", "offline"}
    for target in targets:
        if target not in known:
            nearest = difflib.get_close_matches(target, sorted(known), 3, 0.4)
            listed = ", ".join(nearest) or ", ".join(STAGES)
            raise ConfigError(
                f"a target must be a stage or a file that the configuration names, got "
                f"{target!r}; the nearest are {listed}"
            )


def _parser() -> argparse.ArgumentParser:
    from hesspipe import __version__

    parser = argparse.ArgumentParser(
        prog="hesspipe", description="Exact spectra of neural networks, from training to figure."
    )
    parser.add_argument("--version", action="version", version=f"hesspipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, usage: str | None = None) -> argparse.ArgumentParser:
        described = f"{text[0].upper()}{text[1:]}."
        return commands.add_parser(name, help=text, description=described, usage=usage)

    add("new", "write a small project that runs").add_argument(
        "folder", type=Path, help="new or empty"
    )
    one = add(
        "run",
        "run the workflow in the current folder: what is out of date, and what it needs",
        usage="hesspipe run [--cores N] [-n] [target ...] [-- options of Snakemake]",
    )
    one.add_argument("targets", nargs="*", metavar="target", help="a file or a stage; default: all")
    one.add_argument("-c", "--cores", metavar="N", help="default: all")
    one.add_argument("-n", "--dry-run", action="store_true", help="only list the jobs")
    add("check", "check config.yaml and the functions that it names")
    add("verify", "check every stored result for damage")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, with one line for an error of the user's and exit code 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options: list[str] = []
    if "--" in given and given[0] == "run":
        place = given.index("--")
        given, options = given[:place], given[place + 1 :]
    parser = _parser()
    parsed, unknown = parser.parse_known_args(given)
    if unknown:
        advice = "; options of Snakemake go after --" if parsed.command == "run" else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
    try:
        with one_line_errors():
            _carry_out(parsed, options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is finished", file=sys.stderr)
        raise SystemExit(130) from None


def _carry_out(parsed: argparse.Namespace, options: Sequence[str]) -> None:
    if parsed.command == "new":
        new(parsed.folder)
        return
    _require_workflow()
    if parsed.command == "check":
        check()
    elif parsed.command == "verify":
        verify()
    else:
        dry_run = ["--dry-run"] if parsed.dry_run else []
        run(parsed.targets, parsed.cores, [*dry_run, *options])
