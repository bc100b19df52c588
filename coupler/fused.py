"""The fused forward: stacked dense networks on the CPU, sixteen elements at a time, all layers within the cache.

Eager torch writes the activations of a whole chunk to memory and reads them again, layer by layer. Here a bundle of
sixteen elements goes through all members and layers before the next one begins: its activations stay in the first-level
cache, eight outputs of a layer are summed in registers at once, and the activation is applied before they leave them.
Every element does the same arithmetic in a lane of its own, so its answer is bitwise the same in any company.

A surrogate's compiled form is one Numba function that prepares a bundle, calls :func:`answer_members` and makes mean
and score of what the members say; :class:`CompiledForward` makes a :class:`coupler.surrogate.Forward` of it.
:class:`DenseForward` is all of that for networks that take the inputs as they are.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, typeof, types
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from coupler import lanes
from coupler.errors import FieldMismatch, PluginError
from coupler.lanes import DOUBLE, FLOAT, LANES, Vector
from coupler.routine import Routine, make_routine

# Numba's cache looks at the file of the compiled function only: a plan from other code than it was compiled with is
# refused, and the function is compiled again.
_SOURCES = b"".join(Path(file).read_bytes() for file in (__file__, str(lanes.__file__)))
_BUILD = int.from_bytes(hashlib.sha256(_SOURCES).digest()[:7], "little")
# Outputs that are summed at once: as many as keep the multipliers busy, two such blocks fit into 32 long registers.
_BLOCK, _SMALL_BLOCK = 8, 4
_HEADER, _PER_LAYER = 8, 6
# Places in the header of a plan, and of every layer in what follows.
_MEMBERS, _MEMBER_SIZE, _FEATURES, _WIDEST, _ANSWERS, _LAYERS = 1, 2, 3, 4, 5, 6
_N_IN, _BLOCKS, _SMALL_BLOCKS, _OFFSET, _ACTIVATION, _RESIDUAL = range(_PER_LAYER)
_CACHE_LINE = 64
_ROWS = types.Array(types.float64, 2, "C")
# Inputs may lie in memory that is only to be read.
_QUESTION = (
    types.Array(types.float64, 2, "C", readonly=True),
    types.float64,
    _ROWS,
    types.Array(types.float64, 1, "C"),
)


class Activation(IntEnum):
    """What is applied to the outputs of a layer."""

    IDENTITY = 0
    RELU = 1
    SILU = 2
    GELU = 3
    TANH = 4


@dataclass(frozen=True)
class DenseLayer:
    """One layer of all members: outputs = activation(inputs weights + biases), plus the inputs if it is residual.

    Parameters
    ----------
    weights : ndarray (members, n_in, n_out)
        Rounded to single precision, in which all is computed.
    biases : ndarray (members, n_out)
        Likewise.
    activation : Activation
        Applied to the sums.
    residual : bool
        Whether the layer's inputs are added; as many as outputs then.
    """

    weights: NDArray[np.floating[Any]]
    biases: NDArray[np.floating[Any]]
    activation: Activation = Activation.IDENTITY
    residual: bool = False


@dataclass(frozen=True)
class Nets:
    """Networks as the compiled functions read them.

    Parameters
    ----------
    weights : ndarray, float32
        All weights in the order in which they are used.
    plan : ndarray, int64
        Sizes and places; only this module knows what they mean.
    """

    weights: NDArray[np.float32]
    plan: NDArray[np.int64]


def pack(layers: Sequence[DenseLayer]) -> Nets:
    """Put the layers of all members into the order in which a bundle meets them.

    Parameters
    ----------
    layers : sequence of DenseLayer
        From the features to the answers.

    Returns
    -------
    Nets

    Raises
    ------
    PluginError
        If the shapes of the layers do not fit together.

    Collective: no.
    """
    _check_shapes(layers)
    plan = np.zeros(_HEADER + _PER_LAYER * len(layers), dtype=np.int64)
    members = len(layers[0].weights)
    packed, offset = [], 0
    for layer, entry in zip(layers, plan[_HEADER:].reshape(-1, _PER_LAYER), strict=True):
        n_in, n_out = layer.weights.shape[1:]
        blocks, small = _blocks(n_out)
        packed.append(_pack_layer(layer, blocks, small))
        entry[:] = n_in, blocks, small, offset, layer.activation, layer.residual
        offset += packed[-1].shape[1]
    padded = [_padded(layer.weights.shape[2]) for layer in layers]
    member_size = -(-offset // LANES) * LANES  # so that every member's weights begin with a cache line
    header = (_BUILD, members, member_size, layers[0].weights.shape[1], max(padded), padded[-1], len(layers))
    plan[: len(header)] = header
    weights = _aligned(members * member_size)
    weights.reshape(members, member_size)[:, :offset] = np.concatenate(packed, axis=1)
    return Nets(weights, plan)


def _check_shapes(layers: Sequence[DenseLayer]) -> None:
    if not layers:
        raise PluginError("A network to be compiled has no layers.")
    members, n_in = layers[0].weights.shape[:2]
    for number, layer in enumerate(layers, start=1):
        shape = layer.weights.shape
        if shape[:2] != (members, n_in) or layer.biases.shape != (members, shape[2]) or not layer.weights.size:
            raise PluginError(
                f"Layer {number} of a network to be compiled has weights {shape} and biases {layer.biases.shape}; "
                f"({members}, {n_in}, outputs) and ({members}, outputs) are expected."
            )
        if layer.residual and shape[1] != shape[2]:
            raise PluginError(
                f"Layer {number} of a network to be compiled adds its {shape[1]} inputs to its {shape[2]} outputs: a "
                "residual layer has as many of both."
            )
        n_in = shape[2]


def _blocks(n_out: int) -> tuple[int, int]:
    """Count the blocks of a layer, and the small ones at its end."""
    small = -(-n_out // _SMALL_BLOCK)
    if not _has_long_registers():
        return 0, small
    return small // 2, small % 2


def _has_long_registers() -> bool:
    """Tell whether eight sums of sixteen lanes fit into the processor's registers."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))


def _padded(n_out: int) -> int:
    return -(-n_out // _SMALL_BLOCK) * _SMALL_BLOCK


def _pack_layer(layer: DenseLayer, blocks: int, small: int) -> NDArray[np.float32]:
    """Give (members, size): block by block its biases, then its weights input by input."""
    members, n_in, n_out = layer.weights.shape
    rows = np.zeros((members, 1 + n_in, _padded(n_out)), dtype=np.float32)
    rows[:, 0, :n_out], rows[:, 1:, :n_out] = layer.biases, layer.weights
    ends = np.cumsum([_BLOCK] * blocks + [_SMALL_BLOCK] * small)[:-1]
    return np.concatenate([part.reshape(members, -1) for part in np.split(rows, ends, axis=2)], axis=1)


def _aligned(count: int) -> NDArray[np.float32]:
    """Give zeros that begin with a cache line."""
    raw = np.zeros(count + LANES, dtype=np.float32)
    start = -raw.ctypes.data % _CACHE_LINE // raw.itemsize
    return raw[start : start + count]


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Point to an element of a contiguous array."""
    return builder.gep(make_array(kind)(context, builder, array).data, [offset])  # type: ignore[no-untyped-call]


def _block_of(width: int) -> Any:
    """Make the function that sums so many outputs of a layer for a bundle."""

    @intrinsic
    def block(typing, weights, at, bundle, source, target, added, n_in, activation):  # type: ignore[no-untyped-def]
        whole = types.intp

        def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            weights, at, bundle, source, target, added, n_in, activation = arguments
            lanes_each = ir.IntType(64)(LANES)

            def row(number: Any) -> Any:
                return _pointer(context, builder, signature.args[2], bundle, builder.mul(number, lanes_each))

            first = _pointer(context, builder, signature.args[0], weights, at)
            sums = _sums(builder, width, first, row(source), n_in)
            _finish(builder, sums, activation, row, target, added)
            return context.get_dummy_value()

        return types.void(weights, whole, bundle, whole, whole, whole, whole, whole), code

    return block


def _repeat(builder: Any, times: Any, starts: Sequence[Vector], body: Callable[..., list[Vector]]) -> list[Vector]:
    """Loop at least once: vectors = body(index, vectors), kept in registers."""
    whole = ir.IntType(64)
    before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(whole)
    carried = [builder.phi(start.value.type) for start in starts]
    results = body(index, [Vector(builder, value) for value in carried])
    following = builder.add(index, whole(1))
    index.add_incoming(whole(0), before)
    index.add_incoming(following, loop)
    for value, start, result in zip(carried, starts, results, strict=True):
        value.add_incoming(start.value, before)
        value.add_incoming(result.value, loop)
    builder.cbranch(builder.icmp_signed("<", following, times), loop, after)
    builder.position_at_end(after)
    return results


def _sums(builder: Any, width: int, weights: Any, inputs: Any, n_in: Any) -> list[Vector]:
    """Give biases + inputs weights of one block, in registers."""
    whole = ir.IntType(64)

    def spread(pointer: Any, index: int) -> Vector:
        return Vector.spread(builder, builder.load(builder.gep(pointer, [whole(index)])))

    def add_input(index: Any, sums: list[Vector]) -> list[Vector]:
        x = Vector.load(builder, builder.gep(inputs, [builder.mul(index, whole(LANES))]), FLOAT, aligned=True)
        row = builder.gep(weights, [builder.mul(builder.add(index, whole(1)), whole(width))])
        return [spread(row, output).times_plus(x, total) for output, total in enumerate(sums)]

    return _repeat(builder, n_in, [spread(weights, output) for output in range(width)], add_input)


_ACTIVATIONS: dict[Activation, Callable[[Vector], Vector]] = {
    Activation.RELU: Vector.relu,
    Activation.SILU: Vector.silu,
    Activation.GELU: Vector.gelu,
    Activation.TANH: Vector.tanh,
}


def _finish(
    builder: Any, sums: list[Vector], activation: Any, row: Callable[[Any], Any], target: Any, added: Any
) -> None:
    """Apply the activation to the sums, add rows if there are any to add (a number that is not negative), store."""
    whole = ir.IntType(64)
    start, end = builder.block, builder.append_basic_block("activated")
    cases = builder.switch(activation, end)
    builder.position_at_end(end)
    values = [builder.phi(total.value.type) for total in sums]
    for value, total in zip(values, sums, strict=True):
        value.add_incoming(total.value, start)
    for number, function in _ACTIVATIONS.items():
        case = builder.append_basic_block(number.name.lower())
        cases.add_case(whole(int(number)), case)
        builder.position_at_end(case)
        for value, total in zip(values, sums, strict=True):
            value.add_incoming(function(total).value, case)
        builder.branch(end)
    builder.position_at_end(end)
    with builder.if_else(builder.icmp_signed(">=", added, whole(0))) as (residual, plain):
        with residual:
            for output, value in enumerate(values):
                more = Vector.load(builder, row(builder.add(added, whole(output))), FLOAT, aligned=True)
                (Vector(builder, value) + more).store(row(builder.add(target, whole(output))), aligned=True)
        with plain:
            for output, value in enumerate(values):
                Vector(builder, value).store(row(builder.add(target, whole(output))), aligned=True)


_sum_block, _sum_small_block = _block_of(_BLOCK), _block_of(_SMALL_BLOCK)


def _in_place(kind: Any, function: Callable[[Vector], Vector]) -> Any:
    """Make the function that changes one row of a bundle."""

    @intrinsic
    def change(typing, bundle, row):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            bundle, row = arguments
            pointer = _pointer(context, builder, signature.args[0], bundle, builder.mul(row, ir.IntType(64)(LANES)))
            function(Vector.load(builder, pointer, kind)).store(pointer)
            return context.get_dummy_value()

        return types.void(bundle, types.intp), code

    return change


log_lanes = _in_place(DOUBLE, Vector.log)
signed_log1p_lanes = _in_place(DOUBLE, Vector.signed_log1p)
signed_expm1_lanes = _in_place(DOUBLE, Vector.signed_expm1)


class StaleCodeError(Exception):
    """A compiled function, from the cache, is older than this module."""


@njit(nogil=True)
def workspace(plan):  # type: ignore[no-untyped-def]
    """Make the rows of one bundle: features, two layers, answers of all members.

    Call it once per batch; the features, as many as the first layer has inputs, go into the first rows.

    Returns
    -------
    ndarray (rows, 16), float32
        Beginning with a cache line.
    """
    if plan[0] != _BUILD:
        raise StaleCodeError
    rows = first_answer(plan) + plan[_MEMBERS] * plan[_ANSWERS]
    raw = np.empty((rows + 1) * LANES, dtype=np.float32)
    start = -raw.ctypes.data % _CACHE_LINE // 4
    return raw[start : start + rows * LANES].reshape((rows, LANES))


@njit(nogil=True)
def first_answer(plan):  # type: ignore[no-untyped-def]
    """Give the row of a bundle where the answers begin, with one member those of the only one."""
    return plan[_FEATURES] + 2 * plan[_WIDEST]


@njit(nogil=True)
def answer_members(weights, plan, bundle):  # type: ignore[no-untyped-def]
    """Let all members answer a bundle: from its first rows to its last."""
    for member in range(plan[_MEMBERS]):
        source = 0
        for layer in range(plan[_LAYERS]):
            entry = _HEADER + layer * _PER_LAYER
            target = plan[_FEATURES] + layer % 2 * plan[_WIDEST]
            if layer == plan[_LAYERS] - 1:
                target = first_answer(plan) + member * plan[_ANSWERS]
            at = member * plan[_MEMBER_SIZE] + plan[entry + _OFFSET]
            n_in, activation = plan[entry + _N_IN], plan[entry + _ACTIVATION]
            added, step = (source, 1) if plan[entry + _RESIDUAL] else (-1, 0)
            row = target
            for _ in range(plan[entry + _BLOCKS]):
                _sum_block(weights, at, bundle, source, row, added, n_in, activation)
                at += _BLOCK * (n_in + 1)
                row += _BLOCK
                added += step * _BLOCK
            for _ in range(plan[entry + _SMALL_BLOCKS]):
                _sum_small_block(weights, at, bundle, source, row, added, n_in, activation)
                at += _SMALL_BLOCK * (n_in + 1)
                row += _SMALL_BLOCK
                added += step * _SMALL_BLOCK
            source = target


@intrinsic
def _summarize(typing, bundle, first, stride, members, average, variance):  # type: ignore[no-untyped-def]
    """Put the members' mean and their variance about it into two rows."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        bundle, first, stride, members, average, variance = arguments

        def row(number: Any) -> Any:
            return _pointer(context, builder, signature.args[0], bundle, builder.mul(number, ir.IntType(64)(LANES)))

        def answer(member: Any) -> Vector:
            return Vector.load(builder, row(builder.add(first, builder.mul(member, stride))), FLOAT, aligned=True)

        def add_square(member: Any, totals: list[Vector]) -> list[Vector]:
            distance = answer(member) - mean
            return [distance.times_plus(distance, totals[0])]

        count = Vector.spread(builder, builder.sitofp(members, FLOAT))
        nothing = count * 0.0
        (total,) = _repeat(builder, members, [nothing], lambda member, totals: [totals[0] + answer(member)])
        mean = total / count
        (squares,) = _repeat(builder, members, [nothing], add_square)
        mean.store(row(average), aligned=True)
        (squares / count).store(row(variance), aligned=True)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(bundle, whole, whole, whole, whole, whole), code


@njit(nogil=True)
def summarize_members(plan, bundle):  # type: ignore[no-untyped-def]
    """Make mean and variance of what the members answered.

    Returns
    -------
    mean, variance : int
        Rows of the bundle where they begin.
    """
    mean, variance = plan[_FEATURES], plan[_FEATURES] + plan[_WIDEST]  # the layers are not needed any more
    for output in range(plan[_ANSWERS]):
        first = first_answer(plan) + output
        _summarize(bundle, first, plan[_ANSWERS], plan[_MEMBERS], mean + output, variance + output)  # type: ignore[call-arg]
    return mean, variance


@njit(nogil=True)
def take_bundle(inputs, start, count, bundle):  # type: ignore[no-untyped-def]
    """Turn up to sixteen rows of an array into the first rows of a bundle; missing ones repeat the last."""
    if count == LANES:
        for column in range(inputs.shape[1]):
            for lane in range(LANES):
                bundle[column, lane] = inputs[start + lane, column]
    else:
        for column in range(inputs.shape[1]):
            for lane in range(LANES):
                bundle[column, lane] = inputs[start + min(lane, count - 1), column]


@njit(nogil=True)
def put_bundle(bundle, first, start, count, outputs):  # type: ignore[no-untyped-def]
    """Turn rows of a bundle, from the first on, into up to sixteen rows of an array."""
    if count == LANES:
        for column in range(outputs.shape[1]):
            for lane in range(LANES):
                outputs[start + lane, column] = bundle[first + column, lane]
    else:
        for column in range(outputs.shape[1]):
            for lane in range(count):
                outputs[start + lane, column] = bundle[first + column, lane]


@njit(nogil=True)
def larger(one, other):  # type: ignore[no-untyped-def]
    """Give the larger of two numbers; NaN if one of them is."""
    return one if one > other or one != one else other


@njit(nogil=True, cache=True)
def _answer_dense(inputs, dt, mean, score, weights, plan):  # type: ignore[no-untyped-def]
    bundle = workspace(plan)
    average, variance = first_answer(plan), -1
    spread = np.zeros(LANES)
    for start in range(0, len(inputs), LANES):
        count = min(LANES, len(inputs) - start)
        take_bundle(inputs, start, count, bundle)
        answer_members(weights, plan, bundle)
        if plan[_MEMBERS] > 1:
            average, variance = summarize_members(plan, bundle)
            spread[:] = 0.0
            for output in range(mean.shape[1]):
                for lane in range(LANES):
                    spread[lane] = larger(spread[lane], bundle[variance + output, lane])
        put_bundle(bundle, average, start, count, mean)
        for lane in range(count):
            score[start + lane] = np.sqrt(spread[lane])


class CompiledForward:
    """A Numba function with the arrays it works with, as a :class:`coupler.surrogate.Forward`.

    Making one compiles the function, or takes it from Numba's cache.

    Parameters
    ----------
    function : Numba function
        ``function(inputs, dt, mean, score, weights, plan, *others)``, all arrays C-contiguous and float64 where nothing
        else is said; decorated with ``njit(nogil=True, cache=True)`` and calling :func:`workspace` first.
    n_in, n_out : int
        Columns of inputs and mean.
    nets : Nets or None
        Its weights and plan; without any the function takes neither, and calls no :func:`workspace`.
    others : ndarray
        What else it takes.

    Raises
    ------
    PluginError
        If the function does not compile.
    """

    def __init__(self, function: Any, n_in: int, n_out: int, nets: Nets | None, *others: NDArray[Any]) -> None:
        self._function, self._n_in, self._n_out = function, n_in, n_out
        self._arrays: tuple[NDArray[Any], ...] = others if nets is None else (nets.weights, nets.plan, *others)
        try:
            self._compile()
        except NumbaError as error:
            raise PluginError(f"{function.__name__} cannot be compiled: {error}") from error

    def __call__(
        self, inputs: NDArray[np.float64], dt: float, mean: NDArray[np.float64], score: NDArray[np.float64]
    ) -> None:
        """Answer for a batch; see :class:`coupler.surrogate.Forward`.

        Raises
        ------
        FieldMismatch
            If the arrays have other columns than the operator, or another number of rows each.
        """
        count = len(inputs)
        if inputs.shape != (count, self._n_in) or mean.shape != (count, self._n_out) or score.shape != (count,):
            raise FieldMismatch(
                f"The model was asked with inputs {inputs.shape}, mean {mean.shape} and score {score.shape}; it has "
                f"{self._n_in} inputs and {self._n_out} outputs per element."
            )
        if inputs.flags.c_contiguous and mean.flags.c_contiguous and score.flags.c_contiguous:
            self._function(inputs, dt, mean, score, *self._arrays)
        else:
            whole, doubt = np.empty(mean.shape), np.empty(count)
            self._function(np.ascontiguousarray(inputs), dt, whole, doubt, *self._arrays)
            mean[...], score[...] = whole, doubt

    def routine(self) -> Routine:
        """Give the same forward as compiled code calls it."""
        return make_routine(self._function, self._n_in, self._n_out, self._arrays)

    def _compile(self) -> None:
        """Compile for the one signature it is ever called with, so that no question waits for the compiler."""
        if not self._function.signatures:
            self._function.compile((*_QUESTION, *(typeof(array) for array in self._arrays)))  # type: ignore[no-untyped-call]
            self._function.disable_compile()
        nothing = np.empty((0, self._n_in)), 1.0, np.empty((0, self._n_out)), np.empty(0)
        try:
            self._function(*nothing, *self._arrays)
        except StaleCodeError:
            self._function.recompile()
            self._function(*nothing, *self._arrays)


class DenseForward(CompiledForward):
    """Networks that take the inputs as they are: the mean of the members, and as score the largest spread.

    The score is the square root of the largest variance among the outputs, 0 where there is one member.

    Parameters
    ----------
    layers : sequence of DenseLayer
        From the inputs to the outputs.

    Raises
    ------
    PluginError
        If the shapes of the layers do not fit together.
    """

    def __init__(self, layers: Sequence[DenseLayer]) -> None:
        nets = pack(layers)
        super().__init__(_answer_dense, layers[0].weights.shape[1], layers[-1].weights.shape[2], nets)
