"""Which modules of this package a script runs, directly or through others."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


def code_closure(path_to_script: str | Path, root: str | Path = ".") -> list[str]:
    """List a script and every hesspipe module that it imports, directly or not.

    Snakemake and DVC watch files, not imports: with this list among a rule's inputs, an edit
    of a module reruns what imports it and nothing else. Imports are read from the source, so
    those inside functions count, too; nothing is executed.

    Parameters
    ----------
    path_to_script : str or Path
        Relative to `root`.
    root : str or Path
        Folder that holds the package.

    Returns
    -------
    list of str
        Paths relative to `root`: the script, then the modules in alphabetical order.
    """
    root = Path(root)
    found: set[str] = set()
    waiting = [*_imported_modules(root, str(path_to_script))]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported_modules(root, module)
    return [str(path_to_script), *sorted(found)]


@cache
def _imported_modules(root: Path, path: str) -> tuple[str, ...]:
    """Files of the package that one file imports; packages count by their __init__.py."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    if Path(path).name == "__init__.py":
        # A package's own lazy imports belong to whoever uses them, not to every importer.
        names = set()
    files: set[str] = set()
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            if parts[0] == "hesspipe":
                files.update(_files_of(root, parts[:length]))
    return tuple(sorted(files))


def _files_of(root: Path, parts: list[str]) -> list[str]:
    module = Path(*parts)
    candidates = [module.with_suffix(".py"), module / "__init__.py"]
    return [str(candidate) for candidate in candidates if (root / candidate).is_file()]
