"""States of a search over several processes: one file for each, resumed at a step that all have.

A kill between two files leaves one process a step ahead of another. Each therefore writes its new
state beside the last one, and replaces that when all have written theirs; the newest step that
all have is resumed.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hesspipe.errors import DamagedFileError, ForeignStateError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.search_state import SearchState, start_again
from hesspipe.ranks.ranks import Ranks
from hesspipe.unfinished import remove_leftovers_of, remove_state


def path_of_rank(state: str | Path, ranks: Ranks | None) -> Path:
    """Name the file of this process: ``search.rank-0-of-4.safetensors`` for search.safetensors."""
    path = Path(state)
    if ranks is None:
        return path
    return path.with_name(f"{path.stem}.rank-{ranks.rank}-of-{ranks.size}{path.suffix}")


class RankState(SearchState):
    """The part of the state of a search that one of several processes has.

    Parameters
    ----------
    state : str or Path
        As the caller gave it, the same in all processes.
    basis : KrylovBasis
    settings : mapping
    ranks : Ranks
    """

    def __init__(
        self, state: str | Path, basis: KrylovBasis, settings: Mapping[str, Any], ranks: Ranks
    ) -> None:
        self.ranks, self._given = ranks, Path(state)
        own = {**settings, "rank": ranks.rank, "num_ranks": ranks.size}
        super().__init__(path_of_rank(state, ranks), basis, own)
        self._next = self.path.with_name(f"{self.path.stem}.next{self.path.suffix}")

    def save(self) -> None:
        """Write the part of this process; it counts when all have written theirs."""
        tensors, about = self.contents()
        write_tensors(tensors, self._next, about)
        self.ranks.gather(None, "a saved state")
        os.replace(self._next, self.path)

    def remove(self) -> None:
        """Remove the files of this process."""
        remove_state(self._next)
        super().remove()

    def load(self) -> None:
        """Replace the basis by the newest one that all processes have saved.

        Raises
        ------
        ForeignStateError
            If the files belong to another problem, or to another number of processes.
        """
        self._refuse_other_numbers()
        for path in (self.path, self._next):
            remove_leftovers_of(path)
        found = self._read()
        everywhere = self.ranks.gather(sorted(found), "saved states")
        common = set(everywhere[0]).intersection(*everywhere[1:])
        if not common:
            if any(everywhere):
                self._start_again("not all processes have the same step of it")
            return
        tensors, metadata = found[max(common)]
        found_against = self.ranks.gather(self.reason_against(tensors, metadata), "checks")
        reason = next(filter(None, found_against), None) or self.restore(tensors, metadata)
        if reason is not None:
            self._start_again(reason)

    def _read(self) -> dict[int, tuple[dict[str, Tensor], dict[str, str]]]:
        """Read the files of this process: what they hold, by the number of products."""
        found = {}
        for path in (self.path, self._next):
            if not path.exists():
                continue
            try:
                tensors, metadata = read_tensors(path)
                found[int(metadata["num_products"])] = tensors, metadata
            except (DamagedFileError, KeyError, ValueError) as error:
                start_again(path, error)
        return found

    def _start_again(self, reason: str) -> None:
        for path in (self.path, self._next):
            if path.exists():
                start_again(path, reason)

    def _refuse_other_numbers(self) -> None:
        """Raise an error if there are files of another number of processes."""
        given = self._given
        pattern = f"{glob.escape(given.stem)}.rank-*-of-*{glob.escape(given.suffix)}"
        names = [given.name] if given.is_file() else []
        names += [path.name for path in sorted(given.parent.glob(pattern))]
        for name in names:
            number = re.search(r"\.rank-\d+-of-(\d+)\.", name)
            count = int(number[1]) if number else 1
            if count != self.ranks.size:
                raise ForeignStateError(
                    f"state must be of a search in {self.ranks.size} processes, got {name} of one "
                    f"in {count}; start {count} of them, pass another path, or delete the file"
                )
