"""Samples from a tape: a random part of its elements, the same for everyone who asks."""

from collections.abc import Iterable

import numpy as np

from coupler.learning.samples import SampleBatch
from coupler.operator import Signature
from coupler.records import Reason
from coupler.tape.call import TapeCall

_DRAWN = 0x7A9E


def draw_samples(calls: Iterable[TapeCall], signature: Signature, most: int | None) -> SampleBatch:
    """Draw samples from calls: the elements whose hash of (step, call, id) is lowest.

    Parameters
    ----------
    calls : iterable of TapeCall
        In order of step and call; read one by one.
    signature : Signature
        The operator's.
    most : int or None
        How many; None takes all.

    Returns
    -------
    SampleBatch
        Sorted by (step, call, id). At most ``2 most`` samples and one call are in memory at a time.

    Collective: no.
    """
    batches = [_empty(signature)]
    for call in calls:
        batches.append(_batch(call))
        if most is not None and sum(map(len, batches)) > 2 * most:
            batches = [SampleBatch.join(batches).draw(most, purpose=_DRAWN)]
    whole = SampleBatch.join(batches)
    return whole if most is None else whole.draw(most, purpose=_DRAWN)


def _batch(call: TapeCall) -> SampleBatch:
    count = len(call)
    return SampleBatch(
        inputs=call.inputs,
        dt=np.full(count, call.dt),
        truth=call.truth,
        step=np.full(count, call.step, np.int64),
        call=np.full(count, call.call, np.int64),
        ids=call.ids,
        reason=np.full(count, Reason.PHYSICS, np.uint8),
    )


def _empty(signature: Signature) -> SampleBatch:
    ids = np.empty(0, np.int64)
    return _batch(TapeCall(0, 0, 0.0, ids, np.empty((0, len(signature.inputs))), np.empty((0, len(signature.outputs)))))
