"""Mechanisms packed for compiled code: a few flat arrays, and room for one cell's intermediate values."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.kernels.mechanism import Mechanism


class Tables(NamedTuple):
    """A mechanism as compiled code reads it, all arrays."""

    thermo: NDArray[np.float64]  # (15, species): the middle temperature, seven coefficients below, seven above
    weights: NDArray[np.float64]  # (species,) [kg/kmol]
    shares: NDArray[np.float64]  # (species,) [kmol/kg]: their reciprocals
    pressure: float  # of the standard state [Pa]
    arrhenius: NDArray[np.float64]  # (3, reactions + falloff): ln |A|, b, Ea / R; the low-pressure limits come last
    factors: NDArray[np.float64]  # (3, reactions): sign of A, 1 where reversible, change of the number of molecules
    sides: NDArray[np.uint32]  # (6, reactions): three reactants, three products; nobody is the number of species
    net_first: NDArray[np.uint32]  # (species + 1,): where a species' part of the next two begins
    net_reaction: NDArray[np.uint32]
    net_number: NDArray[np.float64]  # molecules of it that one reaction makes
    slope_target: NDArray[np.uint32]  # derivatives dw_k/dc_i: place in (species, species + 1) ...
    slope_origin: NDArray[np.uint32]  # ... of what stands where in (6, reactions) ...
    slope_number: NDArray[np.float64]  # ... times this
    bodies: NDArray[np.uint32]  # (2, three-body): reaction, row of efficiencies
    body_target: NDArray[np.uint32]  # what third bodies do: place in (third bodies, species) ...
    body_origin: NDArray[np.uint32]  # ... of a reaction ...
    body_number: NDArray[np.float64]  # ... times this
    falloff: NDArray[np.uint32]  # (3, falloff): reaction, row of efficiencies, whether it is Troe's
    troe: NDArray[np.float64]  # (4, falloff): A, 1 / T3, 1 / T1, T2
    efficiencies: NDArray[np.float64]  # (third bodies, species)


class Scratch(NamedTuple):
    """Room for one cell's intermediate values; see :func:`scratch`."""

    cell: NDArray[np.float64]  # pressure, density, concentration of all molecules, heat capacity
    moles: NDArray[np.float64]  # (species,) [kmol/kg]
    c: NDArray[np.float64]  # (species + 1,) [kmol/m3], the last one 1
    cp: NDArray[np.float64]  # (species,) [R]
    slope: NDArray[np.float64]  # (species,) dcp/dT
    h: NDArray[np.float64]  # (species + 1,) [RT]
    g: NDArray[np.float64]  # (species + 1,) [RT]
    logs: NDArray[np.float64]  # logarithms of constants
    k: NDArray[np.float64]  # forward (reactions), low (falloff), backward (reactions)
    scale: NDArray[np.float64]
    bits: NDArray[np.int64]  # the same memory
    m: NDArray[np.float64]  # (third bodies,)
    q: NDArray[np.float64]  # (reactions,) net rates [kmol/(m3 s)]
    w: NDArray[np.float64]  # (species,) net production
    bend: NDArray[np.float64]  # (2, falloff): d ln k/dM and d ln k/dT beyond the limit of high pressure
    by_t: NDArray[np.float64]  # (reactions,) dq/dT
    by_m: NDArray[np.float64]  # (reactions,) dq/d[M]
    by_c: NDArray[np.float64]  # (6, reactions) dq/dc of each reactant and product
    slopes: NDArray[np.float64]  # (species, species + 1): dw/dc
    warmed: NDArray[np.float64]  # (species,) dw/dT
    crowded: NDArray[np.float64]  # (third bodies, species) dw/d[M]


def tables(mechanism: Mechanism) -> Tables:
    """Pack a mechanism for compiled code.

    Raises
    ------
    PluginError
        If a reaction has more than three molecules on a side from which it runs, or a part of a molecule.

    Collective: no.
    """
    place = {name: i for i, name in enumerate(mechanism.names)}
    number, count = len(mechanism.names), len(mechanism.reactions)
    rates, lows, troe, falloff = [], [], [], []
    factors, sides = np.ones((3, count)), np.full((6, count), number, dtype=np.uint32)
    net = np.zeros((number, count))
    bodies, rows, body_of = [], [], np.full(count, -1, dtype=np.int64)
    for j, reaction in enumerate(mechanism.reactions):
        rates.append(_constants(reaction.rate))
        for sign, side in ((-1.0, reaction.reactants), (1.0, reaction.products)):
            for name, molecules in side.items():
                net[place[name], j] += sign * molecules
        factors[:, j] = np.sign(reaction.rate.A), reaction.reversible, net[:, j].sum()
        sides[:3, j] = _three(mechanism, reaction.equation, reaction.reactants)
        if reaction.reversible:
            sides[3:, j] = _three(mechanism, reaction.equation, reaction.products)
        if reaction.colliders is not None:
            row = tuple(reaction.colliders.get(name, reaction.other_colliders) for name in mechanism.names)
            if row not in rows:
                rows.append(row)
            body_of[j] = rows.index(row)
            if reaction.low is None:
                bodies.append((j, rows.index(row)))
        if reaction.low is not None:
            lows.append(_constants(reaction.low))
            falloff.append((j, rows.index(row), bool(reaction.troe)))
            A, T3, T1, T2 = reaction.troe or (0.0, 0.0, 0.0, 0.0)
            troe.append((A, 1.0 / T3 if T3 else np.inf, 1.0 / T1 if T1 else np.inf, T2))
    net_species, net_reaction = np.nonzero(net)
    slopes = [
        (k * (number + 1) + sides[side, j], side * count + j, net[k, j] * (1.0 if side < 3 else -1.0))
        for j, k in zip(*np.nonzero(net.T), strict=True)  # neighbours hit different places: no store waits for another
        for side in range(6)
        if sides[side, j] < number
    ]
    crowds = [(body_of[j] * number + k, j, net[k, j]) for j, k in zip(*np.nonzero(net.T), strict=True)]
    crowds = [entry for entry in crowds if body_of[entry[1]] >= 0]
    return Tables(
        np.ascontiguousarray(mechanism.thermo.T),
        mechanism.weights,
        1.0 / mechanism.weights,
        mechanism.pressure,
        np.array(rates + lows, dtype=np.float64).reshape(-1, 3).T.copy(),
        factors,
        sides,
        np.searchsorted(net_species, np.arange(number + 1)).astype(np.uint32),
        net_reaction.astype(np.uint32),
        net[net_species, net_reaction],
        *_columns(slopes),  # type: ignore[call-arg]
        np.array(bodies, dtype=np.uint32).reshape(-1, 2).T.copy(),
        *_columns(crowds),
        np.array(falloff, dtype=np.uint32).reshape(-1, 3).T.copy(),
        np.array(troe, dtype=np.float64).reshape(-1, 4).T.copy(),
        np.array(rows, dtype=np.float64).reshape(-1, number),
    )


def _constants(rate):
    return (math.log(abs(rate.A)), rate.b, rate.temperature)


def _columns(entries):
    target, origin, number = np.array(entries, dtype=np.float64).reshape(-1, 3).T
    return (target.astype(np.uint32), origin.astype(np.uint32), number.copy())


def _three(mechanism: Mechanism, equation: str, side: dict[str, float]) -> list[int]:
    molecules = [mechanism.index(name) for name, number in side.items() for _ in range(int(number))]
    if len(molecules) > 3 or any(number != int(number) for number in side.values()):
        raise PluginError(
            f'{mechanism.source}: reaction "{equation}" has more than three molecules, or a part of one, on a side '
            "from which it runs, and no elementary reaction does. Write it as irreversible, or as several."
        )
    return molecules + [len(mechanism.names)] * (3 - len(molecules))


@njit(nogil=True, error_model="numpy")
def scratch(tables):
    """Make the room that one cell needs; use it again for the next."""
    number, count, extra, sets = (
        tables.weights.size,
        tables.sides.shape[1],
        tables.falloff.shape[1],
        tables.efficiencies.shape[0],
    )
    scale = np.empty(2 * count + extra)
    c, h, g = np.ones(number + 1), np.zeros(number + 1), np.zeros(number + 1)
    return Scratch(
        np.empty(4), np.empty(number), c, np.empty(number), np.empty(number), h, g, np.empty(2 * count + extra),
        np.empty(2 * count + extra), scale, scale.view(np.int64), np.empty(sets), np.empty(count), np.empty(number),
        np.empty((2, extra)), np.empty(count), np.empty(count), np.empty((6, count)), np.empty((number, number + 1)),
        np.empty(number), np.empty((sets, number)),
    )  # fmt: skip
