"""Explicit float32 vectors for Numba kernels: a few operations on 4 or 8 lanes at a time.

LLVM's loop vectoriser gives up on stencils that read a dozen streams, and so the flow solvers say
what they want: ``load`` makes a vector of consecutive array elements, operators work on all lanes,
``store`` writes them back. Everything is expressed in LLVM's generic vector types, never in
instructions of one processor: on AVX2 a vector of 8 is one register, on arm64 it is two, on
anything else LLVM takes it apart, and the results are the same bits because fused multiply-add and
square root are exactly rounded everywhere.

Each function here is also its own plain-Python twin: outside compiled code a vector is a NumPy
array of 4 or 8 float32, and the functions below run as they stand.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model, type_callable

from labelgen.kernels import kernel

Scalar = float | np.floating

WIDE = 8  # lanes of the vectors that `load` makes
STEPS = np.arange(WIDE, dtype=np.float32)  # what `load(STEPS, 0)` gives is the lanes' numbers


# The division check that NumPy's error model leaves out would keep LLVM from using vectors.
entry_kernel = kernel(error_model="numpy")
"""Decorator of a flow kernel that Python calls."""
inner_kernel = kernel(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of one that only kernels call. It has no entry from Python, where a call would crash;
leaving the entries out saves a fifth of the time to compile a solver."""


def round_up(length: int) -> int:
    """Round up to a multiple of the eight lanes."""
    return -(-length // WIDE) * WIDE


def aligned_zeros(length: int) -> np.ndarray:
    """Make a flat float32 array that begins at a multiple of 64 bytes, a cache line."""
    raw = np.zeros(length + 16, np.float32)
    first = -raw.ctypes.data // raw.itemsize % 16
    return raw[first : first + length]


def load(array: np.ndarray, index: int) -> np.ndarray:
    """Read eight consecutive elements of a flat float32 array, at any alignment."""
    return array[index : index + WIDE].copy()


def load4(array: np.ndarray, index: int) -> np.ndarray:
    """Read four consecutive elements of a flat float32 array."""
    return array[index : index + 4].copy()


def load_every2(array: np.ndarray, index: int) -> np.ndarray:
    """Read eight elements two apart; 16 are touched."""
    return array[index : index + 2 * WIDE : 2].copy()


def load_every4(array: np.ndarray, index: int) -> np.ndarray:
    """Read eight elements four apart, one channel of eight pixels; 32 are touched."""
    return array[index : index + 4 * WIDE : 4].copy()


def store(array: np.ndarray, index: int, vector: np.ndarray) -> None:
    """Write all lanes of a vector to a flat float32 array, from `index` on."""
    array[index : index + len(vector)] = vector


def store_every2(array: np.ndarray, index: int, even: np.ndarray, odd: np.ndarray) -> None:
    """Write the lanes of two vectors alternately, 16 elements from `index` on."""
    array[index : index + 2 * WIDE : 2] = even
    array[index + 1 : index + 1 + 2 * WIDE : 2] = odd


def store_whole(array: np.ndarray, index: int, vector: np.ndarray) -> None:
    """Write lanes that hold whole numbers to a flat int32 array."""
    array[index : index + len(vector)] = vector


def splat(value: Scalar) -> np.ndarray:
    """Fill eight lanes with one value."""
    return np.full(WIDE, value, np.float32)


def splat4(value: Scalar) -> np.ndarray:
    """Fill four lanes with one value."""
    return np.full(4, value, np.float32)


def sortable(a: np.ndarray) -> np.ndarray:
    """Rearrange each lane's bits so that, read as whole numbers, they rise with the floats.

    Twice gives the lane back. Processors sort whole numbers faster: `lower` and `upper`.
    """
    bits = a.view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def lower(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Take the smaller of two `sortable` lanes."""
    return np.minimum(a.view(np.int32), b.view(np.int32)).view(np.float32)


def upper(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Take the larger of two `sortable` lanes."""
    return np.maximum(a.view(np.int32), b.view(np.int32)).view(np.float32)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Multiply and add, ``a * b + c`` per lane, rounded once.

    In the twin the product is exact in float64, and the sum is rounded twice, which differs in the
    last bit about once in 10**9.
    """
    return (a.astype(np.float64) * b + c).astype(np.float32)


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Take the smaller of two lanes; neither may be NaN."""
    return np.where(a < b, a, b)


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Take the larger of two lanes; neither may be NaN."""
    return np.where(a > b, a, b)


def sqrt(a: np.ndarray) -> np.ndarray:
    """Take the square root of each lane, exactly rounded."""
    return np.sqrt(a)


def floor(a: np.ndarray) -> np.ndarray:
    """Round each lane down to a whole number, still float32."""
    return np.floor(a)


class Lanes(types.Type):
    """Numba's type of a vector of `count` float32 lanes."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Lanes({count})")


LANES8 = Lanes(WIDE)
LANES4 = Lanes(4)


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """In memory and in registers, an LLVM vector."""

    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(ir.FloatType(), lanes.count))


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _is_flat(array: Any, dtype: Any = types.float32) -> bool:
    return (
        isinstance(array, types.Array)
        and array.ndim == 1
        and array.layout == "C"
        and array.dtype == dtype
    )


def _register_load(function: Callable[..., Any], lanes: Lanes, apart: int = 1) -> None:
    @type_callable(function)
    def type_load(context: Any) -> Any:
        def typer(array: Any, index: Any) -> Any:
            if _is_flat(array) and isinstance(index, types.Integer):
                return signature(lanes, array, types.intp)
            return None

        return typer

    @lower_builtin(function, types.Array, types.intp)
    def lower_load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, index = args
        whole = ir.VectorType(ir.FloatType(), lanes.count * apart)
        pointer = _pointer(context, builder, sig.args[0], array, index, whole)
        block = builder.load(pointer, align=4)
        if apart == 1:
            return block
        return builder.shuffle_vector(block, block, _lanes(*range(0, lanes.count * apart, apart)))


_register_load(load, LANES8)
_register_load(load4, LANES4)
_register_load(load_every2, LANES8, apart=2)
_register_load(load_every4, LANES8, apart=4)


@type_callable(store)
def _type_store(context: Any) -> Any:
    def typer(array: Any, index: Any, vector: Any) -> Any:
        if _is_flat(array) and isinstance(index, types.Integer) and isinstance(vector, Lanes):
            return signature(types.none, array, types.intp, vector)
        return None

    return typer


@lower_builtin(store, types.Array, types.intp, Lanes)
def _lower_store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array, index, vector = args
    pointer = _pointer(context, builder, sig.args[0], array, index, vector.type)
    builder.store(vector, pointer, align=4)
    return context.get_dummy_value()


@type_callable(store_whole)
def _type_store_whole(context: Any) -> Any:
    def typer(array: Any, index: Any, vector: Any) -> Any:
        if _is_flat(array, types.int32) and isinstance(index, types.Integer) and vector == LANES8:
            return signature(types.none, array, types.intp, LANES8)
        return None

    return typer


@lower_builtin(store_whole, types.Array, types.intp, Lanes)
def _lower_store_whole(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array, index, vector = args
    whole = builder.fptosi(vector, ir.VectorType(ir.IntType(32), WIDE))
    pointer = _pointer(context, builder, sig.args[0], array, index, whole.type)
    builder.store(whole, pointer, align=4)
    return context.get_dummy_value()


@type_callable(store_every2)
def _type_store_every2(context: Any) -> Any:
    def typer(array: Any, index: Any, even: Any, odd: Any) -> Any:
        if _is_flat(array) and isinstance(index, types.Integer) and even == odd == LANES8:
            return signature(types.none, array, types.intp, LANES8, LANES8)
        return None

    return typer


@lower_builtin(store_every2, types.Array, types.intp, Lanes, Lanes)
def _lower_store_every2(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array, index, even, odd = args
    order = _lanes(*(lane // 2 + WIDE * (lane % 2) for lane in range(2 * WIDE)))
    woven = builder.shuffle_vector(even, odd, order)
    pointer = _pointer(context, builder, sig.args[0], array, index, woven.type)
    builder.store(woven, pointer, align=4)
    return context.get_dummy_value()


def _register_splat(function: Callable[..., Any], lanes: Lanes) -> None:
    @type_callable(function)
    def type_splat(context: Any) -> Any:
        def typer(value: Any) -> Any:
            return signature(lanes, types.float32) if isinstance(value, types.Float) else None

        return typer

    @lower_builtin(function, types.float32)
    def lower_splat(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        one = ir.Constant(ir.VectorType(ir.FloatType(), 1), ir.Undefined)
        one = builder.insert_element(one, args[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, one, _lanes(*[0] * lanes.count))


_register_splat(splat, LANES8)
_register_splat(splat4, LANES4)


def _lanes(*numbers: int) -> Any:
    """Which lanes a shuffle takes."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)


def _call_llvm(name: str) -> Any:
    """Lowering to an LLVM intrinsic that takes and returns vectors of one type."""

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = args[0].type
        kind = ir.FunctionType(vector, [vector] * len(args))
        full_name = f"llvm.{name}.v{vector.count}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, full_name), args)

    return lowering


def _choose(comparison: str) -> Any:
    """Lowering to a compare and a select, which x86 and arm64 do in one instruction."""

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(comparison, *args), *args)

    return lowering


def _as_integers(builder: Any, vector: Any) -> Any:
    return builder.bitcast(vector, ir.VectorType(ir.IntType(32), vector.type.count))


def _lower_sortable(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    bits = _as_integers(builder, args[0])
    shift, magnitude = (ir.Constant(bits.type, [n] * WIDE) for n in (31, 0x7FFFFFFF))
    flipped = builder.and_(builder.ashr(bits, shift), magnitude)
    return builder.bitcast(builder.xor(bits, flipped), args[0].type)


def _choose_integer(comparison: str) -> Any:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = [_as_integers(builder, arg) for arg in args]
        chosen = builder.select(builder.icmp_signed(comparison, *whole), *whole)
        return builder.bitcast(chosen, args[0].type)

    return lowering


def _arithmetic(name: str) -> Any:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, name)(*args)

    return lowering


class _SameLanes(AbstractTemplate):
    """All arguments, and the result, are vectors of one type."""

    def generic(self, args: Any, kws: Any) -> Any:
        if not kws and args and all(isinstance(arg, Lanes) and arg == args[0] for arg in args):
            return signature(args[0], *args)
        return None


for _function, _arity, _lowering in (
    (operator.add, 2, _arithmetic("fadd")),
    (operator.sub, 2, _arithmetic("fsub")),
    (operator.mul, 2, _arithmetic("fmul")),
    (operator.truediv, 2, _arithmetic("fdiv")),
    (minimum, 2, _choose("<")),
    (maximum, 2, _choose(">")),
    (sortable, 1, _lower_sortable),
    (lower, 2, _choose_integer("<")),
    (upper, 2, _choose_integer(">")),
    (fma, 3, _call_llvm("fma")),
    (sqrt, 1, _call_llvm("sqrt")),
    (floor, 1, _call_llvm("floor")),
):
    if _function.__module__ == __name__:
        infer_global(_function, types.Function(type("Same", (_SameLanes,), {"key": _function})))
    else:
        infer_global(_function)(type("Same", (_SameLanes,), {"key": _function}))
    lower_builtin(_function, *[Lanes] * _arity)(_lowering)
