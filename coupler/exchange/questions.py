"""Questions: the two control lines of a slot, in compiled code. The rank writes the first, who answers the second.

A question is what it is, then its number; an answer is mean and score, then the number of its question.
"""

import numpy as np
from numba import njit

from coupler.exchange.atomics import load_acquire, monotonic_ns, store_release
from coupler.exchange.doorbell import announce, await_change, count_up
from coupler.exchange.segment import LINE

WORDS = LINE // 4
CONTROL_LINES = 2
# Words of the control lines; what is wider than a word begins at an even one.
REQUEST, COUNT, VERSION, GENERATION, DT, ASKED, CAPACITY, PID, DESCRIPTOR = 0, 1, 2, 3, 4, 6, 8, 10, 11
ANSWER, SECONDS, TURNAROUND = WORDS, WORDS + 4, WORDS + 6
# Columns of a list of questions.
SLOT, NUMBER, HOW_MANY, OF_VERSION, IN_GENERATION = range(5)
COLUMNS = 5


@njit(nogil=True, cache=True)
def ask(words, bell, count, dt, version):  # type: ignore[no-untyped-def]
    """Put a question into a slot's control lines and ring. Collective: no."""
    words[COUNT], words[VERSION] = count, version
    words.view(np.float64)[DT // 2] = dt
    words.view(np.int64)[ASKED // 2] = monotonic_ns()
    store_release(words, REQUEST, words[REQUEST] + 1)
    count_up(bell)


@njit(nogil=True, cache=True)
def await_answer(words, timeout, memory):  # type: ignore[no-untyped-def]
    """Wait for an answer, at most so many seconds; see :meth:`coupler.exchange.Slot.wait`. Collective: no."""
    answered, number = words[ANSWER : ANSWER + 2], words[REQUEST]
    seen = load_acquire(answered, 0)
    if seen != number:
        await_change(answered, seen, np.int64(timeout * 1e9), memory)
    reals = words.view(np.float64)
    return load_acquire(answered, 0) == number, reals[SECONDS // 2], reals[TURNAROUND // 2]


@njit(nogil=True, cache=True)
def answer(words, number, seconds):  # type: ignore[no-untyped-def]
    """Say that a question is answered, like :meth:`coupler.exchange.Slot.answer`. Collective: no."""
    reals = words.view(np.float64)
    reals[SECONDS // 2] = seconds
    reals[TURNAROUND // 2] = 1e-9 * (monotonic_ns() - words.view(np.int64)[ASKED // 2])
    announce(words[ANSWER : ANSWER + 2], number)


@njit(nogil=True, cache=True)
def list_questions(words, places, found, steps):  # type: ignore[no-untyped-def]
    """List the questions that wait for an answer.

    Parameters
    ----------
    words : ndarray of uint32
        The whole arena.
    places : ndarray (slots,) of int64
        First word of every slot's control lines.
    found : ndarray (slots, 5) of int64
        Receives slot, number, count, version and generation of every question.
    steps : ndarray (slots,)
        Receives its time step.

    Returns
    -------
    int
        How many there are.

    Collective: no.
    """
    many = 0
    for index in range(len(places)):
        control = words[places[index] : places[index] + CONTROL_LINES * WORDS]
        number = load_acquire(control, REQUEST)
        if number != load_acquire(control, ANSWER):
            found[many, SLOT], found[many, NUMBER], found[many, HOW_MANY] = index, number, control[COUNT]
            found[many, OF_VERSION], found[many, IN_GENERATION] = control[VERSION], control[GENERATION]
            steps[many] = control.view(np.float64)[DT // 2]
            many += 1
    return many
