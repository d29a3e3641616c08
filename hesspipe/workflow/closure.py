"""The modules that a script runs, directly or through others."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

_GLUE = str(Path("hesspipe", "workflow"))
_PLOTS = str(Path("hesspipe", "plots"))
# Who draws; the `plot` methods of results elsewhere import `hesspipe.plots` when they are called.
_DRAWS = (_PLOTS, str(Path("hesspipe", "figures")), "scripts")


def code_closure(
    path_to_script: str | Path, root: str | Path = ".", modules: Iterable[str] = ()
) -> list[str]:
    """List a script and every hesspipe module that it imports, directly or not.

    Snakemake watches files, not imports: with this list among a rule's inputs, an edit of a
    module reruns what imports it and nothing else. Imports are read from the source, so those
    inside functions count, too; nothing is executed. Modules of `hesspipe.workflow` are left
    out: they start jobs and record them, and affect no number. Those of `hesspipe.plots` count for
    figures only: a color is no reason to compute a spectrum again.

    Parameters
    ----------
    path_to_script : str or Path
        Relative to `root`.
    root : str or Path
        Folder that holds scripts/, and in a clone hesspipe/ (see `package_folder`).
    modules : iterable of str
        Dotted names of modules that the script imports by name.

    Returns
    -------
    list of str
        The script, then the modules in alphabetical order; their paths in a clone.

    Raises
    ------
    ValueError
        If an import does not name its module: a relative one, or a name that a package with a
        stub (`__init__.pyi`) loads lazily.
    """
    package = package_folder(root)
    found: set[str] = set()
    waiting = [*_imported_modules(package, str(path_to_script), Path(root))]
    waiting += [path for name in modules for path in _files_on_the_way(package, name)]
    while waiting:
        module = waiting.pop()
        if module not in found and not module.startswith(_GLUE):
            found.add(module)
            waiting += _imported_modules(package, module, package)
    return [str(path_to_script), *sorted(found)]


def package_folder(root: str | Path) -> Path:
    """Locate the folder that holds hesspipe/: `root` in a clone, else that of this package.

    An installed package has its scripts in hesspipe/_workflow/.
    """
    return Path(root) if Path(root, "hesspipe").is_dir() else Path(__file__).parents[2]


def user_code(names: Iterable[str], root: str | Path = ".") -> list[str]:
    """List the files behind user functions, and every local module that they import.

    Installed packages are left out: the versions that affect a number are pinned.

    Parameters
    ----------
    names : iterable of str
        Each "package.module:function".
    root : str or Path
        The folder that the workflow runs in.

    Returns
    -------
    list of str
        Paths relative to `root`, in alphabetical order.
    """
    root = Path(root)
    waiting = [path for name in names for path in _files_on_the_way(root, name.split(":")[0])]
    found: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _local_imports(root, path)
    return sorted(found)


@cache
def parse(path: Path) -> ast.Module:
    """Parse a module, once in a process."""
    return ast.parse(path.read_bytes())


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Iterate over a module and its statements: imports and docstrings are nowhere else."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, field, [])


@cache
def _local_imports(root: Path, path: str) -> tuple[str, ...]:
    """Files below a folder that one file imports, packages on the way to them included."""
    package = Path(path).parent.parts
    names: set[str] = set()
    for node in statements(parse(root / path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names.add(module)
            names.update(f"{module}.{alias.name}".lstrip(".") for alias in node.names)
    files = (_files_on_the_way(root, name) for name in names if name)
    return tuple(sorted({file for found in files for file in found}))


@cache
def _files_on_the_way(root: Path, module: str) -> tuple[str, ...]:
    """Files that Python runs to import a module: the packages that hold it, and itself."""
    package = module.rpartition(".")[0]
    return (*(_files_on_the_way(root, package) if package else ()), *_files_of(root, module))


@cache
def _imported_modules(root: Path, path: str, folder: Path) -> tuple[str, ...]:
    """Files of the package that a file in a folder imports; packages count by their __init__.py."""
    if path == str(Path("hesspipe", "__init__.py")):
        return ()  # its lazy imports count for the modules that use them, not for every importer
    names: set[str] = set()
    for node in statements(parse(folder / path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
            _refuse(path, node, any(_is_lazy(root, alias.name) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            _refuse(path, node, node.level > 0)
            names.add(str(node.module))
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names.update(below)
            are_modules = all(_files_of(root, name) for name in below)
            _refuse(path, node, _is_lazy(root, str(node.module)) and not are_modules)
    inside = (_files_on_the_way(root, name) for name in names if name.split(".")[0] == "hesspipe")
    files = {file for found in inside for file in found}
    if not path.startswith(_DRAWS):
        files = {file for file in files if not file.startswith(_PLOTS)}
    return tuple(sorted(files))


@cache
def _is_lazy(root: Path, module: str) -> bool:
    """Whether a module of the package is a package whose names come from a stub."""
    parts = module.split(".")
    return parts[0] == "hesspipe" and Path(root, *parts, "__init__.pyi").is_file()


def _refuse(path: str, node: ast.stmt, is_opaque: bool) -> None:
    """Refuse an import that does not name its module: edits of the module would go unnoticed."""
    if is_opaque:
        raise ValueError(
            f"{path}, line {node.lineno}: write '{ast.unparse(node)}' as 'from hesspipe.<module> "
            "import <name>', so that the workflow can read what it depends on"
        )


@cache
def _files_of(root: Path, module: str) -> tuple[str, ...]:
    place = Path(*module.split("."))
    candidates = [place.with_suffix(".py"), place / "__init__.py"]
    return tuple(str(candidate) for candidate in candidates if (root / candidate).is_file())
