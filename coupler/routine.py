"""Routines: compiled functions with the arrays they belong to, as one address that compiled code can call.

Numba calls what it has compiled by its type, and the type says how many arrays there are. Whoever answers for many
models in one compiled loop wants them all alike. So a routine is a few instructions of its own that know where the
arrays are, and call the function.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

_WHOLE, _REAL, _STATUS = ir.IntType(64), ir.DoubleType(), ir.IntType(32)
_TYPE = ir.FunctionType(_STATUS, [_WHOLE, _WHOLE, _REAL, _WHOLE, _WHOLE])
_NAME = "routine"
_UNLIMITED = 2**62


class Routine(NamedTuple):
    """A forward that compiled code calls with :func:`call_routine`.

    Attributes
    ----------
    address : int
        Where it is.
    most : int
        Elements of a round up to which it is called alone; with more, others can help.
    held : tuple
        What it needs to stay alive.
    """

    address: int
    most: int
    held: tuple[object, ...]


def make_routine(function: Any, n_in: int, n_out: int, arrays: Sequence[NDArray[Any]]) -> Routine:
    """Make a routine of a forward.

    Parameters
    ----------
    function : Numba function
        ``function(inputs, dt, mean, score, *arrays)``, compiled for one signature.
    n_in, n_out : int
        Columns of inputs and mean.
    arrays : sequence of ndarray
        Contiguous; they must not move.

    Returns
    -------
    Routine

    Collective: no.
    """
    with global_compiler_lock:
        library = _compile(function, n_in, n_out, arrays)
    return Routine(library.get_pointer_to_function(_NAME), _UNLIMITED, (library, function, *arrays))


def _compile(function: Any, n_in: int, n_out: int, arrays: Sequence[NDArray[Any]]) -> Any:
    ((_, compiled),) = function.overloads.items()
    context = cpu_target.target_context
    library = context.codegen().create_library(_NAME)
    module = library.create_ir_module(_NAME)
    routine = ir.Function(module, _TYPE, _NAME)
    builder = ir.IRBuilder(routine.append_basic_block())
    count, inputs, dt, mean, score = routine.args
    kinds = compiled.signature.args
    places = [(inputs, (count, n_in)), (mean, (count, n_out)), (score, (count,))]
    question = [_array(context, builder, kind, *place) for kind, place in zip(_without_dt(kinds), places, strict=True)]
    constants = [
        _array(context, builder, kind, _WHOLE(array.ctypes.data), array.shape)
        for kind, array in zip(kinds[4:], arrays, strict=True)
    ]
    target = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    convention = context.call_conv.get_function_type(types.none, kinds)
    callee = builder.inttoptr(_WHOLE(target), convention.as_pointer())
    given = [question[0], dt, *question[1:], *constants]
    status, _ = context.call_conv.call_function(builder, callee, types.none, kinds, given)
    builder.ret(builder.zext(status.is_error, _STATUS))
    library.add_ir_module(module)
    library.finalize()
    return library


def _without_dt(kinds: Sequence[Any]) -> Sequence[Any]:
    """Types of inputs, mean and score."""
    return kinds[0], kinds[2], kinds[3]


def _array(context: Any, builder: Any, kind: Any, address: Any, shape: Sequence[Any]) -> Any:
    """Describe contiguous memory as an array of this type."""
    sizes = [size if isinstance(size, ir.Value) else _WHOLE(size) for size in shape]
    item = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    strides = [_WHOLE(item)]
    for size in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    array = context.make_array(kind)(context, builder)
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data=data, shape=sizes, strides=strides, itemsize=_WHOLE(item), meminfo=None)  # type: ignore[no-untyped-call]
    return array._getvalue()


_instruction: Any = intrinsic


@_instruction
def call_routine(typing_context, address, count, inputs, dt, mean, score):  # type: ignore[no-untyped-def]
    """Call a routine from compiled code with the addresses of a question's rows; 0 if it has answered them."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        address, *rest = arguments
        return builder.call(builder.inttoptr(address, _TYPE.as_pointer()), rest)

    whole = types.int64
    return types.int32(whole, whole, whole, types.float64, whole, whole), generate
