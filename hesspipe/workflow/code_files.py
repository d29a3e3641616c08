"""One file for the code that a script runs, for Snakemake to watch.

A script runs dozens of modules. As inputs of every job, they would be most of the files that a dry
run handles. So the input is a single file with their digests, whose name depends on its content:
after an edit of a module the inputs of the jobs that run it are another set, which Snakemake
notices even if the edit is made while jobs are running.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from functools import cache
from pathlib import Path

from hesspipe.files import digest, write_text
from hesspipe.workflow.closure import code_closure, package_folder, parse, statements

_FOLDER = Path(".hesspipe/code")


@cache
def code_file(script: str, root: str, module: str | None = None) -> str:
    """Write the digests of the code that a script runs, and return the path of their file.

    Parameters
    ----------
    script : str
        Name of a script, without its folder and suffix.
    root : str
        Folder that holds scripts/, and in a clone hesspipe/.
    module : str, optional
        Dotted name of a module that the script imports by name.

    Returns
    -------
    str
        Relative to the current folder.
    """
    files = code_closure(f"scripts/{script}.py", root, [module] if module else [])
    package = package_folder(root)
    places = {
        file: Path(package if Path(file).parts[0] == "hesspipe" else root, file) for file in files
    }
    digests = {Path(file).as_posix(): code_digest(places[file]) for file in files}
    text = json.dumps(digests, indent=1) + "\n"
    label = script if module is None else f"{script}_{module.rpartition('.')[2]}"
    # In a folder of its own, which Snakemake lists (once) only after this.
    path = _FOLDER / label / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(text, path)
        # As old as the code: results that were restored after it are not older than this file.
        latest = max(os.stat(place).st_mtime for place in places.values())
        os.utime(path, (latest, latest))
    return path.as_posix()


@cache
def code_digest(path: Path) -> str:
    """Compute the SHA-256 of a file; of a module without docstrings, which affect no result."""
    if path.suffix != ".py":
        return digest(path)
    return hashlib.sha256(without_docstrings(path.read_bytes(), parse(path))).hexdigest()


def without_docstrings(source: bytes, tree: ast.Module) -> bytes:
    r"""Remove the docstrings of a module, its classes and its functions, and their lines.

    Comments stay: some of them are read by programs.

    Examples
    --------
    >>> source = b'def one():\n    "Return 1."\n    return 1  # always\n'
    >>> without_docstrings(source, ast.parse(source))
    b'def one():\n    return 1  # always\n'
    """
    lines = source.splitlines(keepends=True)
    for node in statements(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())) as found, *_]:
                first, last = found.lineno - 1, (found.end_lineno or found.lineno) - 1
                before, after = (
                    lines[first][: found.col_offset],
                    lines[last][found.end_col_offset :],
                )
                lines[first : last + 1] = [b""] * (last - first) + [before + after]
                if not lines[last].strip():
                    lines[last] = b""
    return b"".join(lines)
