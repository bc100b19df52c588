"""Arrays lent to compiled functions: nobody counts who holds them.

Numba counts the holders of every array, atomically, whenever one goes into a function or comes out of a tuple. A
function of one cell that takes the forty arrays of a mechanism spends half its time on that. What is borrowed is not
counted::

    parameters = (borrowed(tables), borrowed(scratch))  # in compiled code

Whoever lends must hold on to it for as long as it is used. Numba lets go of a variable after the last line that names
it, so name what was lent once more behind the last use.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


@intrinsic
def _borrowed(typing, lent):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        (value,) = arguments
        for place, kind in enumerate(signature.args[0]):
            if isinstance(kind, types.Array):
                array = make_array(kind)(context, builder, builder.extract_value(value, place))
                array.meminfo, array.parent = array.meminfo.type(None), array.parent.type(None)
                value = builder.insert_value(value, array._getvalue(), place)
        return value

    return lent(lent), code


borrowed: Any = _borrowed  # numba's stubs take what compiled code passes for a call from Python
"""``borrowed(lent)`` gives a tuple of arrays whose holders are not counted; what is no array in it stays as it is."""
