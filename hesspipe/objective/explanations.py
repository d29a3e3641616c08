"""One clear line in place of the errors that torch raises inside a model or a loss."""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

import torch

from hesspipe.errors import HesspipeError
from hesspipe.hardware import exhaustion, is_exhaustion
from hesspipe.objective.batches import Batch
from hesspipe.objective.places import place_of_error
from hesspipe.objective.pytrees import Fields, named_tensors
from hesspipe.objective.whole_batches import WholeBatch

_FLOATS = r"(float|double|half|bfloat16|c10::half|c10::bfloat16)"
_NEEDS_MODEL = (
    "a loss that differentiates the model needs the model itself, not its outputs: use "
    "Objective.from_batches, with loss(model, batch)"
)
# Messages of torch 2.13, and what to do about each.
_ADVICE = [
    (
        r"'nonetype' object has no attribute|must be tensor, not nonetype|for .*: 'nonetype'",
        "None stands where a tensor is needed: forward must return its outputs",
    ),
    (
        r"object has no attribute '(ndim|size|shape|dim|dtype|device|log_softmax|view)'"
        r"|must be tensor, not "
        r"|unsupported operand .*: ('[\w.]+' and 'tensor'|'tensor' and '[\w.]+')",
        "loss_fn is given what the model returns; of a tuple, a dictionary or an object it has to "
        "take the tensor, as in lambda outputs, targets: loss_fn(outputs[0], targets)",
    ),
    (
        r"does not require grad",
        "the loss does not depend on the parameters: leave out detach(), item(), no_grad() and "
        f"conversions to NumPy between the parameters and the loss; {_NEEDS_MODEL}",
    ),
    (
        r"input should be between 0 and 1",
        "nn.BCELoss takes probabilities: use nn.BCEWithLogitsLoss() on outputs without a sigmoid",
    ),
    (
        r"multi-target not supported",
        "class labels have no dimension of their own: of shape (N, 1) pass targets.squeeze(1)",
    ),
    (
        r"float32.* got double|not implemented for 'double'",
        "this operation has no other dtype: pass dtype=torch.float32",
    ),
    (
        r"\bnested|relation is indeterminate",
        "use dense tensors: torch.nested.to_padded_tensor(values, 0.0) converts a nested one",
    ),
    (r"sparse", "use embeddings with sparse=False, and dense tensors"),
    (
        r"modified in-?place",
        "do not change parameters or their views in place, e.g. by max_norm in an embedding",
    ),
    (
        r"in-?place operation",
        "do not work in place on what the loss is given, or a derivative needs: write "
        "outputs = outputs / 2, not outputs /= 2",
    ),
    (
        r"found dtype (long|int|bool|short|byte|char) but expected"
        r"|expected floating point type for target|result type (float|double) can't be cast"
        r"|not implemented for 'long'|bool tensors",
        "convert targets to numbers, with targets.float()",
    ),
    (
        r"(long|int|short|byte|char|bool|unsigned char) (!=|and) (double|float)"
        r"|(double|float) (!=|and) (long|int|short|byte|char|bool|unsigned char)",
        "convert integers in inputs or forward to numbers, with inputs.float()",
    ),
    (
        r"expected (scalar type|dtype|target dtype to be) long|dtype int64"
        r"|not implemented for 'int'",
        "class labels are integers, of targets.long()",
    ),
    (
        rf"same (scalar )?d?type|should be the same|dtypes (must|match)|equal to src.dtype"
        rf"|expected scalar type {_FLOATS}|{_FLOATS} (!=|and) {_FLOATS}|found dtype {_FLOATS}"
        r"|destination dtypes match",
        "make tensors in forward and in the loss of the dtype of their inputs (x.new_zeros(3), or "
        "dtype=x.dtype), or pass dtype=torch.float32",
    ),
    (
        r"index out of range in self",
        "tokens are from 0 to the number of rows of their embedding - 1",
    ),
    (
        r"out of (bounds|range)",
        "class labels are from 0 to the number of outputs - 1",
    ),
    (
        r"appears to not have been used in the graph|backward through the graph a second time",
        _NEEDS_MODEL,
    ),
    (
        r"\b(size|sizes|shape|shapes|dimension|dimensions|broadcast|batch_size)\b",
        "every sample is one row in inputs, outputs and targets",
    ),
]
# Traced by torch to be differentiated, as nothing else that runs here.
_TRACED = "_higher_order_ops/cond.py"
_SECOND_DERIVATIVE = r"derivative for '?[\w:.]+'? is not implemented|differentiate twice"


@contextmanager
def explained(batch: Batch, number: int, dtype: torch.dtype) -> Iterator[None]:
    """Replace an error that a model or a loss raises by one that says on what, and what to do.

    Errors of hesspipe and those that name an operation without a second derivative are left as they
    are.

    Parameters
    ----------
    batch : Batch
        What the model is evaluated on.
    number : int
        Of the batch.
    dtype : torch.dtype
        Of the objective.

    Raises
    ------
    TooLargeError
        If memory ran out.
    ValueError
    """
    try:
        yield
    except HesspipeError:
        raise
    except Exception as error:
        if is_exhaustion(error):
            what = f"the model with the loss on batch {number} ({_described(batch)})"
            raise exhaustion(error, what, "use smaller batches") from error
        message = (str(error).strip() or "no message").splitlines()[0]
        if is_of_hesspipe(error) or re.search(_SECOND_DERIVATIVE, str(error)):
            raise
        place = place_of_error(error)
        if any(frame.filename.endswith(_TRACED) for frame in extract_tb(error.__traceback__)):
            raise ValueError(
                f"model and loss_fn must not call torch.cond, got {type(error).__name__}: "
                f"{message}{place}; write torch.where(condition, first, second), or an if statement"
            ) from error
        fitting = (text for found, text in _ADVICE if re.search(found, message, re.IGNORECASE))
        advice = next(fitting, "run them on the same data without hesspipe first")
        # torch raises RuntimeError: the functions were called as they expect.
        if isinstance(batch.inputs, WholeBatch) and not isinstance(error, RuntimeError):
            advice += (
                "; loss is called as loss(model, batch), or, where outputs are given, as "
                "outputs(model, batch) and loss(outputs, batch)"
            )
        raise ValueError(
            f"model and loss_fn must run on the data in {dtype}, got {type(error).__name__}: "
            f"{message} (batch {number}: {_described(batch)}){place}; {advice}"
        ) from error


def is_of_hesspipe(error: Exception) -> bool:
    """Whether a statement of hesspipe raised the error, not a function in C that it called."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    code = last.tb_frame.f_code
    is_ours = Path(code.co_filename).is_relative_to(Path(__file__).parents[1])
    return is_ours and dis.opname[code.co_code[last.tb_lasti]] in ("RAISE_VARARGS", "RERAISE")


def _described(batch: Batch) -> str:
    if isinstance(batch.inputs, WholeBatch):
        return str(batch.inputs)
    inputs = batch.inputs.values if isinstance(batch.inputs, Fields) else batch.inputs
    tensors = [*named_tensors(inputs, "inputs"), *named_tensors(batch.targets, "targets")]
    return ", ".join(
        f"{name} {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in tensors
    )
