"""Optional packages, and user functions, referred to in config.yaml as "package.module:function".

Modules are searched for as by `python -m`: first below the working directory of the workflow, then
among the installed packages. Errors that the source code shows are reported before any job starts.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hesspipe.errors import nearest_names
from hesspipe.seeding import derive_seed

_PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def require_packages(*names: str, purpose: str) -> None:
    """Raise an error that says what to install if an optional package is missing.

    Raises
    ------
    ModuleNotFoundError

    Examples
    --------
    >>> require_packages("astrolabe", purpose="plot")
    Traceback (most recent call last):
    ModuleNotFoundError: plot needs astrolabe, not installed here; run: pip install astrolabe
    """
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise ModuleNotFoundError(
            f"{purpose} needs {' and '.join(missing)}, not installed here; run: pip install "
            f"{' '.join(missing)}"
        )


def is_function_name(name: str) -> bool:
    """Return whether a text has the form "package.module:function".

    Examples
    --------
    >>> is_function_name("torch.nn:CrossEntropyLoss"), is_function_name("torch.nn.MSELoss")
    (True, False)
    """
    return _PATTERN.fullmatch(name) is not None


def meant_function(text: str) -> str | None:
    """Guess which name a path, or a name with a dot for the colon, stands for; None if unclear.

    Examples
    --------
    >>> meant_function("torch.nn.MSELoss"), meant_function("./networks/small.py:build")
    ('torch.nn:MSELoss', 'networks.small:build')
    """
    module, colon, function = text.strip().partition(":")
    if not colon:
        module, _, function = module.rpartition(".")
    module = module.removeprefix("./").removesuffix(".py").replace("/", ".")
    name = f"{module}:{function}"
    return name if is_function_name(name) and function != "py" else None


def source_file(module: str, root: str | Path = ".") -> Path | None:
    """Find the file of a module below a folder.

    Parameters
    ----------
    module : str
        Dotted name.
    root : str or Path
        The folder that contains its top-level package or module.

    Returns
    -------
    Path or None
        Relative to `root`; None if the module is not below it (it may be installed).
    """
    stem = Path(*module.split("."))
    for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
        if Path(root, candidate).is_file():
            return candidate
    return None


def check_name(name: str, root: str | Path = ".") -> str | None:
    """Check the name of a function against the source code, without importing it.

    Parameters
    ----------
    name : str
        "package.module:function".
    root : str or Path
        Working directory of the workflow.

    Returns
    -------
    str or None
        An error message, or None. Functions of installed packages are only looked up when they
        are called.
    """
    module, _, function = name.partition(":")
    path = source_file(module, root)
    if path is None:
        package = module.split(".")[0]
        if source_file(package, root) or Path(root, package).is_dir():
            meant = meant_function(name)
            advice = f"; write {meant!r}" if meant not in (None, name) else ""
            return f"must name a module below {package}, got {name!r}{advice}"
        if not _is_installed(package):
            return (
                f"must name a module in this folder or an installed one, got {name!r}; there is "
                f"no {package}.py here"
            )
        return None
    try:
        source = Path(root, path).read_text(encoding="utf-8")
        names, missing = _top_level_names(source), _missing_package(source, root)
    except SyntaxError as error:
        return (
            f"must name a module that can be read, got {name!r} ({path}, line {error.lineno}): "
            f"{error.msg}"
        )
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # of a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"must name a module that can be read, got {name!r} ({path}: {reason})"
    if missing is not None:
        line, package = missing
        return (
            f"must name a module that can be imported, got {name!r}: {path}, line {line}, imports "
            f"{package}, which is not installed"
        )
    if function in names or "*" in names:
        return None
    known = ", ".join(sorted(names)) or "nothing"
    return f"must name a function of {path}, which has {known}; got {name!r}"


def _is_installed(package: str) -> bool:
    try:
        return package != "__main__" and importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a module that was made by a program
        return False


def load_function(name: str, root: str | Path = ".") -> Callable[..., Any]:
    """Import a function by its name.

    Parameters
    ----------
    name : str
        "package.module:function"; the function may be a class.
    root : str or Path
        Inserted into `sys.path`, and left there: a module may import others when its functions
        are called.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If the module or the function is not found.
    """
    module_name, _, function_name = name.partition(":")
    folder = str(Path(root).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with refusing_exits(name):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the user's module imports
        raise ValueError(
            f"{name!r} must name a module in this folder or an installed one; there is no "
            f"{error.name}"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        near = f"; the nearest are {nearest_names(function_name, known)}" if known else ""
        raise ValueError(
            f"{name!r} must name a function of {module_name}, which has none of that name{near}"
        )
    return function  # type: ignore[no-any-return]  # getattr is Any


def call_function(name: str, arguments: Mapping[str, Any], root: str | Path = ".") -> Any:
    """Call a function by its name with arguments from config.yaml.

    Raises
    ------
    ValueError
        If the function is not found, or does not accept these arguments.
    """
    function = load_function(name, root)
    require_arguments(name, function, arguments)
    with refusing_exits(name):
        return function(**arguments)


@contextmanager
def refusing_exits(name: str) -> Iterator[None]:
    """Refuse a user's module or function that ends Python, as a script does, in a line of its own.

    Parameters
    ----------
    name : str
        The function's, for the message.

    Raises
    ------
    ValueError
    """
    try:
        yield
    except SystemExit as error:
        raise ValueError(
            f"{name!r} must not end Python, got SystemExit({error.code!r}); put what a script "
            "does, such as reading its arguments, below if __name__ == '__main__':"
        ) from error


def require_arguments(
    name: str, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    """Raise an error unless a function takes these arguments, as far as Python knows.

    Raises
    ------
    ValueError
    """
    try:
        signature = inspect.signature(function).replace(return_annotation=inspect.Signature.empty)
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"the arguments of {name!r} must fit {signature}, got {sorted(arguments)} ({error})"
        ) from None
    except ValueError:
        pass  # a function written in C without a signature, which raises its own error


def call_seeded(name: str, arguments: Mapping[str, Any], seed: int, purpose: str) -> Any:
    """Call a function by its name with torch's global random state seeded, and restore it after.

    Parameters
    ----------
    name, arguments
        See `call_function`.
    seed : int
    purpose : str
        What the numbers are for; see `hesspipe.seeding.derive_seed`.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, purpose))
        return call_function(name, arguments)


def _missing_package(source: str, root: str | Path) -> tuple[int, str] | None:
    """Find a package that a module imports whatever happens, and that is not installed."""
    for node in ast.parse(source).body:
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        for package in (module.split(".")[0] for module in modules):
            is_here = source_file(package, root) or Path(root, package).is_dir()
            if not (is_here or _is_installed(package)):
                return node.lineno, package
    return None


def _top_level_names(source: str) -> set[str]:
    """Collect the names that a module defines or imports outside its functions and classes."""
    names: set[str] = set()
    waiting: list[ast.AST] = [*ast.parse(source).body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
        else:
            waiting += ast.iter_child_nodes(node)
    return names
