"""Fields: named arrays on a local subdomain, and the state they make together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.errors import FieldMismatch, PluginError, did_you_mean


@dataclass(frozen=True)
class Field:
    """Describe one physical quantity.

    Parameters
    ----------
    name : str
        Its name in the state, in operators, in files and in messages.
    unit : str
        Its unit, ``"1"`` if it has none.
    bounds : (float or None, float or None)
        Smallest and largest value that physics allows; None is no bound. An answer of a surrogate outside
        of them is refused.

    Raises
    ------
    PluginError
        If the name is not an identifier or the bounds are not two numbers in their order.
    """

    name: str
    unit: str = "1"
    bounds: tuple[float | None, float | None] = (None, None)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise PluginError(
                f'A field is named "{self.name}": names become keys in files and cases. '
                "Use letters, digits and underscores."
            )
        if len(self.bounds) != 2 or not self.lower < self.upper:  # not: NaN is below nothing
            raise PluginError(
                f'Field "{self.name}" has bounds {self.bounds}: give two, the first below the second, None for none.'
            )

    @property
    def lower(self) -> float:
        """Lower bound, minus infinity if there is none."""
        return -np.inf if self.bounds[0] is None else float(self.bounds[0])

    @property
    def upper(self) -> float:
        """Upper bound, infinity if there is none."""
        return np.inf if self.bounds[1] is None else float(self.bounds[1])


@dataclass(frozen=True)
class LocalField:
    """One field on this rank's subdomain.

    Parameters
    ----------
    field : Field
        What the numbers are.
    array : ndarray, local shape plus the halo on both sides of every dimension
        The numbers; kernels work on it in place.
    halo : int
        Ghost width in cells.
    """

    field: Field
    array: NDArray[np.float64]
    halo: int

    @property
    def interior(self) -> NDArray[np.float64]:
        """View of the cells this rank owns, without the halo."""
        if self.halo == 0:
            return self.array
        return self.array[(slice(self.halo, -self.halo),) * self.array.ndim]


class State(Mapping[str, LocalField]):
    """All fields of a kernel on this rank: ``state["u"].array`` with halo, ``state["u"].interior`` without.

    Parameters
    ----------
    fields : tuple of Field
        What the kernel declares, in its order.
    local_shape : tuple of int
        Cells this rank owns per dimension.
    halo : int
        Ghost width in cells; halos start as zeros.

    Attributes
    ----------
    time : float
        When this is the state, 0 at the start. Whoever steps a kernel sets it, before the step to the time the step
        begins at; a kernel only reads it, for what its equations say of the time itself (the sun, a moving wall).
    """

    def __init__(self, fields: tuple[Field, ...], local_shape: tuple[int, ...], halo: int) -> None:
        self.time = 0.0
        shape = tuple(cells + 2 * halo for cells in local_shape)
        self._locals = {field.name: LocalField(field, np.zeros(shape), halo) for field in fields}
        if len(self._locals) != len(fields):
            names = [field.name for field in fields]
            twice = next(name for name in names if names.count(name) > 1)
            raise PluginError(f'Field "{twice}" is declared twice: every field needs a name of its own.')

    def copy_from(self, other: "State") -> None:
        """Take over the numbers of another state of the same fields and shape, halos and time included."""
        self.time = other.time
        for name, local in self.items():
            np.copyto(local.array, other[name].array)

    def __getitem__(self, name: str) -> LocalField:
        try:
            return self._locals[name]
        except KeyError:
            raise FieldMismatch(
                f'There is no field "{name}" in this state.{did_you_mean(name, self._locals)}'
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._locals)

    def __len__(self) -> int:
        return len(self._locals)

    def __repr__(self) -> str:
        lines = [f"  {name}: {local.interior.shape} [{local.field.unit}]" for name, local in self._locals.items()]
        return "\n".join(["State", *lines])
