"""The state of an unfinished training, which is accepted as far as it proves itself.

A folder holds `step<step>.safetensors` for each checkpoint and for the last record, and
`history.json`. The history is written last, as one sealed file: the rows, the SHA-256 of each
checkpoint that belongs to them, and that of everything that decides the training. What it does not
list does not count. If a listed checkpoint is missing or another one, the training goes back to
the last one before it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from hesspipe.errors import DamagedFileError
from hesspipe.files import atomic_path, digest, reading, write_sealed
from hesspipe.networks.checkpoints import Checkpoint, read_checkpoint
from hesspipe.seals import BLANK, check_seal
from hesspipe.unfinished import remove

Row = dict[str, Any]
_LOG = logging.getLogger(__name__)
# What a training writes, and the temporary files that a kill leaves.
_OWN_NAME = re.compile(r"(step\d+\.safetensors|history\.json)|\.(step\d+|history)\..*")


@dataclass
class TrainingState:
    """The records of one training in its folder, which must be locked.

    Attributes
    ----------
    folder : Path
        For this training alone.
    training : str
        Digest of everything that decides the numbers.
    rows : list of dict
        The history up to the last record.
    digests : dict of int to str
        SHA-256 of the checkpoints that belong to it, by their steps, in ascending order.
    """

    folder: Path
    training: str = ""
    rows: list[Row] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)

    def resume(self, model: nn.Module) -> int:
        """Load the last record that is proven into a model, which is not changed without one.

        What does not belong to it is removed. Where something is wrong, one line of the log names
        the first file.

        Returns
        -------
        int
            The step of the record; 0 without one. `rows` ends before it.
        """
        fault = self._accept(model)
        step = max(self.digests, default=0)
        if fault:
            whither = f"goes back to step {step}" if self.digests else "starts again"
            _LOG.warning("%s; the training %s", fault, whither)
            if self.digests:
                self._write_history()
        self._remove_all_else()
        self.rows = [row for row in self.rows if row["step"] < step]
        return step

    def save(self, row: Row, checkpoint: Checkpoint, forget: Iterable[int] = ()) -> None:
        """Add a record, then remove the states of some earlier steps.

        A kill leaves the record before or this one, with all that belongs to it.
        """
        path = checkpoint_path(self.folder, checkpoint.step)
        checkpoint.write(path)
        forgotten = set(forget) - {checkpoint.step}
        self.digests = {step: sha for step, sha in self.digests.items() if step not in forgotten}
        self.digests[checkpoint.step] = digest(path)
        self.rows.append(row)
        self._write_history()
        for step in forgotten:
            checkpoint_path(self.folder, step).unlink(missing_ok=True)

    def copy_checkpoints(self, paths: Sequence[str | Path]) -> None:
        """Copy checkpoints to their places, each named step<step>.safetensors.

        Raises
        ------
        DamagedFileError
            If one of them, or the history, is not as it was written.
        """
        _, _, digests = self._read_history()
        for path in paths:
            step = int(Path(path).stem.removeprefix("step"))
            source = checkpoint_path(self.folder, step)
            if not source.is_file():
                raise DamagedFileError(source, "it is missing")
            with atomic_path(path) as temporary:
                shutil.copyfile(source, temporary)
                if digest(temporary) != digests.get(step):
                    raise DamagedFileError(source, "it is another one than the history lists")

    def _accept(self, model: nn.Module) -> str:
        """Take over what is proven; describe the first thing that is not, if any."""
        if not self._history.is_file():
            has_begun = any(self.folder.glob("step*.safetensors"))
            return f"{self._history} is missing" if has_begun else ""
        try:
            training, rows, digests = self._read_history()
        except DamagedFileError:
            return f"{self._history} is damaged or of another version"
        if training != self.training:
            return f"{self._history} is of another training"
        proven, fault = self._proven(digests)
        if proven:
            newest = checkpoint_path(self.folder, max(proven))
            try:
                read_checkpoint(newest, model).into(model)
            except DamagedFileError:
                return f"{newest} is damaged or of another version"
            self.digests = proven
            self.rows = [row for row in rows if row["step"] <= max(proven)]
        return fault

    def _proven(self, digests: Mapping[int, str]) -> tuple[dict[int, str], str]:
        """Select the checkpoints before the first that is missing or differs; describe that one."""
        proven: dict[int, str] = {}
        for step, expected in digests.items():
            path = checkpoint_path(self.folder, step)
            if not path.is_file():
                return proven, f"{path} is missing"
            if digest(path) != expected:
                return proven, f"{path} is damaged, or another one than the history lists"
            proven[step] = expected
        return proven, ""

    @property
    def _history(self) -> Path:
        return self.folder / "history.json"

    def _read_history(self) -> tuple[str, list[Row], dict[int, str]]:
        """Read the training's digest, the rows, and the checkpoints that belong to them."""
        if not self._history.is_file():
            raise DamagedFileError(self._history, "it is missing")
        try:
            with reading(self._history):
                check_seal(self._history)
            record = json.loads(self._history.read_bytes())
            digests = {int(step): known for step, known in record["checkpoints"].items()}
            return record["training"], record["rows"], digests
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(self._history, error) from None

    def _write_history(self) -> None:
        record = {
            "digest": BLANK,
            "training": self.training,
            "checkpoints": self.digests,
            "rows": self.rows,
        }
        write_sealed(json.dumps(record).encode(), self._history)

    def _remove_all_else(self) -> None:
        kept = {checkpoint_path(self.folder, step) for step in self.digests}
        if kept:
            kept.add(self._history)
        for path in self._own_files():
            if path not in kept:
                remove(path)

    def _own_files(self) -> Iterator[Path]:
        """List what a training may have written here; other files are not touched."""
        for path in self.folder.glob("*"):
            if _OWN_NAME.fullmatch(path.name):
                yield path


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name the file of a step's checkpoint in a training's state."""
    return folder / f"step{step}.safetensors"
