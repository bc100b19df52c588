"""What the user can get wrong, each as one sentence that says what to type.

Everything a user can cause is a :class:`CouplerError`; everything only we can cause is an ``assert``.
"""

from collections.abc import Iterable
from difflib import get_close_matches

# What a program says at its end: it met a mistake of its user's, or of its own.
USER_MISTAKE, FAILED = 2, 1


class CouplerError(Exception):
    """Any mistake a user of coupler can make; the message says what, where, why it matters and what to do."""


class ConfigError(CouplerError):
    """A case file or a command line asks for something that does not exist or cannot be."""


class PluginError(CouplerError):
    """A kernel, operator or surrogate cannot be found, cannot be built or breaks its contract."""


class FieldMismatch(CouplerError):
    """Arrays do not have the names, shapes or types that the operator or the grid declares."""


class LifecycleError(CouplerError):
    """A call came at a moment when it means nothing (before ``with``, after ``close``)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest to a mistyped one.

    Parameters
    ----------
    name : str
        What the user wrote.
    known : iterable of str
        What could have been meant.

    Returns
    -------
    str
        `` Did you mean "x"?`` with a leading space, the list of what is known if nothing is near,
        or the empty string if nothing is known at all.

    Collective: no.
    """
    options = sorted(known)
    near = get_close_matches(name, options, n=1, cutoff=0.5)
    if near:
        return f' Did you mean "{near[0]}"?'
    return f" Known: {', '.join(options)}." if options else ""
