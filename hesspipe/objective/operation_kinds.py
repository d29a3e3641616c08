"""Which operations of torch round numbers: none of theirs, their result, or sums inside."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

from torch._decomp import decomposition_table

_NAMES_OF_EXACT = """
    _assert_async _efficientzerotensor _local_scalar_dense _reshape_copy _to_copy _unsafe_index
    _unsafe_view abs alias amax amin aminmax arange argmax argmin argsort as_strided_copy
    as_strided_scatter
    bernoulli bitwise_and bitwise_not bitwise_or bitwise_xor broadcast_in_dim bucketize cat ceil
    channel_shuffle clamp clamp_max clamp_min clone collapse_view complex concat constant_pad_nd
    contiguous convert_element_type copy copysign count_nonzero cummax cummin detach device_put
    diag_embed diagonal_backward diagonal_scatter dropout embedding empty empty_like empty_permuted
    empty_strided eq eye fill flip floor fmax fmin fmod frac full full_like gather ge gt hardtanh
    hardtanh_backward heaviside im2col index index_copy index_fill index_select iota isfinite isin
    isinf isnan kthvalue le lift lift_fresh lift_fresh_copy linalg_diagonal logical_and logical_not
    logical_or logical_xor lt masked_fill masked_scatter masked_select max max_pool2d_with_indices
    max_pool3d_with_indices max_unpool2d max_unpool3d maximum median min minimum mode nan_to_num
    nanmedian native_dropout ne neg new_empty new_empty_strided new_full new_ones new_zeros nonzero
    normal one_hot ones ones_like permute_copy pixel_shuffle pixel_unshuffle put rand rand_like
    randint randint_like randn randn_like randperm real reflection_pad1d reflection_pad2d
    reflection_pad3d relu relu6 remainder repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d reshape resize roll rot90 round scalar_tensor scatter
    searchsorted select_backward select_scatter sgn sign signbit slice_backward slice_scatter sort
    split_copy split_dim split_with_sizes_copy squeeze_copy stack take threshold threshold_backward
    topk tril triu trunc unbind_copy unfold_copy uniform unique_consecutive unique_dim
    unsqueeze_copy upsample_nearest1d upsample_nearest2d upsample_nearest3d
    value_selecting_reduction_backward view_as_complex_copy view_as_real_copy view_copy view_of
    where zero zeros zeros_like
"""
# One rounding, of the result: the inputs are taken as they are.
_NAMES_OF_ELEMENTARY = """
    acos acosh add addcdiv addcmul asin asinh atan atan2 atanh cos cosh deg2rad digamma div erf
    erfc erfinv exp exp2 expm1 float_power hypot lgamma log log10 log1p log2 logaddexp logaddexp2
    logit mul pow polygamma rad2deg reciprocal rsqrt rsub sigmoid sin sinc sinh special_entr
    special_erfcx special_log_ndtr special_ndtri special_xlog1py special_zeta sqrt square sub tan
    tanh true_divide xlogy
"""
# These select numbers or add them, by an argument.
_NAMES_OF_REDUCTIONS = frozenset({"scatter_reduce", "index_reduce"})
_NAMES_OF_NORMS = frozenset({"linalg_vector_norm", "norm"})
# Torch's part of it is one primitive, which adds the same numbers, and whose use loads torch's
# compiler: a second for the first objective of a process.
_WHOLE = frozenset({"sum"})
_EXACT = frozenset(_NAMES_OF_EXACT.split())
_ELEMENTARY = frozenset(_NAMES_OF_ELEMENTARY.split())


@functools.cache
def kind_of(func: Any) -> Literal["exact", "elementary", "fused"]:
    """Classify an operation; views are exact, and so is what processes send to each other."""
    name = name_of(func)
    is_view = any(
        part.alias_info is not None and not part.alias_info.is_write
        for part in func._schema.returns
    )
    if is_view or name in _EXACT or func.namespace == "c10d":
        return "exact"
    return "elementary" if name in _ELEMENTARY else "fused"


def name_of(func: Any) -> str:
    """Name of an operation, the same for all its variants."""
    name: str = func._schema.name.split("::")[-1].rstrip("_")
    return name


def is_selection(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation that may add numbers selects the largest or smallest of them.

    Torch finds the entries that were selected by comparing them with the result.
    """
    name = name_of(func)
    if name in _NAMES_OF_REDUCTIONS:
        return bool(
            {"amax", "amin"} & {part for part in (*args, *kwargs.values()) if type(part) is str}
        )
    if name in _NAMES_OF_NORMS:
        orders = (*args[1:2], *(kwargs.get(key) for key in ("ord", "p")))
        return any(isinstance(order, float) and math.isinf(order) for order in orders)
    return False


@functools.cache
def has_parts(func: Any) -> bool:
    """Whether an operation is evaluated by its parts."""
    is_whole = func._schema.is_mutable or name_of(func) in _WHOLE
    return func in decomposition_table and not is_whole
