"""Kernels: a whole simulation for people who do not bring their own loop."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.operator import Operator

if TYPE_CHECKING:
    from coupler.grid import Grid


class Evaluate(Protocol):
    """What a kernel calls for its expensive part; only this call is routed to surrogate or truth."""

    def __call__(self, operator: Operator, state: State, dt: float) -> None:
        """Replace the operator's output fields, cell by cell, by their values after ``dt``."""


class Kernel(ABC):
    """A simulation: fields, a start and a step. Subclass it; every rank runs the same ``step`` on its subdomain.

    Attributes
    ----------
    fields : tuple of Field
        What the state holds.
    halo : int
        Ghost width in cells that the cheap part of the step reads.
    dimensions : tuple of int
        Numbers of space dimensions the kernel works in.

    Operators are attributes (of the class, or of the object where they depend on parameters); their attribute
    names are their names in the case file. Keyword arguments of ``__init__`` are the kernel's parameters.
    """

    fields: tuple[Field, ...] = ()
    halo: int = 1
    dimensions: tuple[int, ...] = (1, 2, 3)

    @abstractmethod
    def start(self, state: State, grid: "Grid") -> None:
        """Fill the interior of every field with its value at t = 0. Must not depend on the decomposition."""

    @abstractmethod
    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        """Advance the state by ``dt`` in place; call ``evaluate`` for the operators, exchange halos at will."""

    @property
    def operators(self) -> dict[str, Operator]:
        """The kernel's operators by attribute name, in order of declaration."""
        found: dict[str, Operator] = {}
        for namespace in (*(vars(owner) for owner in reversed(type(self).__mro__)), vars(self)):
            found.update({name: value for name, value in namespace.items() if isinstance(value, Operator)})
        # A subclass may have put something else in an operator's place.
        return {name: value for name, value in found.items() if getattr(self, name) is value}


def evaluate_truth(operator: Operator, state: State, dt: float) -> None:
    """Run the truth on every cell: the :class:`Evaluate` of a run without a coupler.

    Stepping a kernel by hand with this function is bitwise a run in mode ``physics``.

    Collective: no.
    """
    scatter(operator, state, operator.evaluate_truth(gather(operator, state), dt))


def gather(operator: Operator, state: State, rows: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Copy the operator's input fields into rows (n, n_in), one per local cell in C order; into ``rows`` if given."""
    names = operator.signature.input_names
    if rows is None:
        rows = np.empty((state[names[0]].interior.size, len(names)))
    for column, name in enumerate(names):
        interior = state[name].interior
        rows[:, column].reshape(interior.shape)[...] = interior
    return rows


def scatter(operator: Operator, state: State, rows: NDArray[np.float64]) -> None:
    """Write the operator's output rows (n, n_out) back into the fields."""
    for column, name in enumerate(operator.signature.output_names):
        interior = state[name].interior
        interior[...] = rows[:, column].reshape(interior.shape)


def check_kernel(kernel: Kernel) -> None:
    """Refuse a kernel that declares nothing to simulate or nothing to couple.

    Raises
    ------
    PluginError
        If the kernel has no fields or names one twice, has no operator, or an operator over unknown fields.
    """
    name = type(kernel).__name__
    if not kernel.fields:
        raise PluginError(f'Kernel "{name}" declares no fields: set fields = (Field("u"), ...).')
    if not (isinstance(kernel.fields, tuple | list) and all(isinstance(item, Field) for item in kernel.fields)):
        raise PluginError(f'Kernel "{name}" has fields = {kernel.fields!r}: write a tuple, fields = (Field("u"), ...).')
    if not kernel.operators:
        raise PluginError(f'Kernel "{name}" has no operator: make its expensive part an attribute of type Operator.')
    State(tuple(kernel.fields), (1,), 0)  # finds names that are given twice
    for operator in kernel.operators.values():
        operator.bound_to(kernel.fields)
