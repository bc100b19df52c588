"""Atomic words of shared memory and sleeping on them, for compiled code.

Numba has neither; both are one LLVM instruction or one system call. Every function takes a C-contiguous array of
uint32 and an index into it. All are sequentially consistent: what a process wrote before it wrote a word is seen by
whoever has read that word, on any processor, and two processes that each write a word and then read the other's cannot
both miss it.
"""

import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from coupler.errors import CouplerError

_WORD = ir.IntType(32)
_FUTEX_WAIT, _FUTEX_WAKE, _ALL_WAITERS = 0, 1, 2**31 - 1
_CLOCK_MONOTONIC = 1
_SYSTEM_CALLS = {"x86_64": 202, "aarch64": 98}
# 0 where the number is not known: check_processor says so before anything waits.
_FUTEX = _SYSTEM_CALLS.get(platform.machine(), 0)

# Callers do not give the typing context that the decorated functions take.
_instruction: Any = intrinsic
_syscall: Any = types.ExternalFunction(
    "syscall",
    types.intp(types.intp, types.intp, types.intp, types.intp, types.intp, types.intp, types.intp),
)
_sched_yield: Any = types.ExternalFunction("sched_yield", types.intc())
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.intc(types.intc, types.intp))


def check_processor() -> None:
    """Refuse a processor whose system calls are not known here.

    Raises
    ------
    CouplerError
        If this is neither x86_64 nor aarch64.

    Collective: no.
    """
    if not _FUTEX:
        raise CouplerError(
            f"The shared transport does not know this processor ({platform.machine()}). "
            "Use --set exchange.transport=inprocess."
        )


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _WORD.as_pointer())


@_instruction
def _load(typing_context, address):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_pointer(builder, arguments[0]), "seq_cst", 4)

    return types.uint32(types.intp), generate


@_instruction
def _store(typing_context, address, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), "seq_cst", 4)
        return context.get_dummy_value()

    return types.void(types.intp, types.uint32), generate


@_instruction
def _add(typing_context, address, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", _pointer(builder, arguments[0]), arguments[1], "seq_cst")

    return types.uint32(types.intp, types.uint32), generate


@_instruction
def _exchange_if(typing_context, address, expected, desired):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pair = builder.cmpxchg(_pointer(builder, arguments[0]), arguments[1], arguments[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.intp, types.uint32, types.uint32), generate


@njit(inline="always")
def _address(words, index):  # type: ignore[no-untyped-def]
    return words.ctypes.data + 4 * index


@njit(nogil=True, cache=True)
def load_acquire(words, index):  # type: ignore[no-untyped-def]
    """Read a word; what was written before it elsewhere is seen after."""
    return _load(_address(words, index))


@njit(nogil=True, cache=True)
def store_release(words, index, value):  # type: ignore[no-untyped-def]
    """Write a word; what was written before it here is seen by whoever reads it."""
    _store(_address(words, index), np.uint32(value))


@njit(nogil=True, cache=True)
def fetch_add(words, index, value):  # type: ignore[no-untyped-def]
    """Add to a word (modulo 2^32) and give what it was before."""
    return _add(_address(words, index), np.uint32(value))


@njit(nogil=True, cache=True)
def compare_exchange(words, index, expected, desired):  # type: ignore[no-untyped-def]
    """Write a word if it is what was expected; say whether it was."""
    return _exchange_if(_address(words, index), np.uint32(expected), np.uint32(desired))


@njit(nogil=True, cache=True)
def futex_wait(words, index, seen, nanoseconds):  # type: ignore[no-untyped-def]
    """Sleep in the kernel while a word is what was seen, until woken, interrupted by a signal or the time is up."""
    limit = np.empty(2, np.int64)
    limit[0] = nanoseconds // 1_000_000_000
    limit[1] = nanoseconds % 1_000_000_000
    _syscall(_FUTEX, _address(words, index), _FUTEX_WAIT, np.intp(seen), limit.ctypes.data, 0, 0)
    # The array must live until here.
    return limit[0]


@njit(nogil=True, cache=True)
def futex_wake(words, index):  # type: ignore[no-untyped-def]
    """Wake everybody who sleeps on a word."""
    _syscall(_FUTEX, _address(words, index), _FUTEX_WAKE, _ALL_WAITERS, 0, 0, 0)


@njit(nogil=True, cache=True)
def yield_core():  # type: ignore[no-untyped-def]
    """Let another process have this core, if one wants it."""
    _sched_yield()


@njit(nogil=True, cache=True)
def monotonic_ns():  # type: ignore[no-untyped-def]
    """Nanoseconds of the node's monotonic clock, the one of ``time.monotonic_ns``, common to its processes."""
    now = np.empty(2, np.int64)
    _clock_gettime(_CLOCK_MONOTONIC, now.ctypes.data)
    return now[0] * 1_000_000_000 + now[1]
