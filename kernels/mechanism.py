"""Mechanisms of gas kinetics: species, thermodynamics, transport and reactions, read from Cantera's YAML.

Format: https://cantera.org/stable/yaml/index.html. Read are ideal-gas phases with NASA7 polynomials, and reactions of
the forms that ``reactions.py`` lists. Cantera itself is not needed. Numbers become the SI with kmol, as in Cantera.

Shipped are ``h2o2.yaml`` (hydrogen and oxygen, 10 species) and ``h2no.yaml`` (with nitrogen chemistry, 19 species).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError, did_you_mean
from coupler.kernels.elements import ATOMIC_WEIGHTS
from coupler.kernels.mechanism_file import SHIPPED, document_of, entries, found, sections
from coupler.kernels.reactions import Reaction, read_reaction
from coupler.kernels.units import BOLTZMANN, Units

# What a list in the place of a mapping, a word in that of a number and the like come to, wherever they are met.
_MISSHAPEN = (
    ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError,
)  # fmt: skip
_DEBYE = 1e-21 / 299792458.0  # C m
_TRANSPORT = ("well-depth", "diameter", "dipole", "polarizability", "rotational-relaxation")
_SI = (BOLTZMANN, 1e-10, _DEBYE, 1e-30, 1.0)  # of K, angstrom, debye, cubic angstrom and 1


@dataclass(frozen=True)
class Mechanism:
    """Everything that a file says of a gas.

    Parameters
    ----------
    source : str
        File and phase.
    names : tuple of str
        The species, in the order of the phase.
    weights : ndarray (species,)
        Molar masses [kg/kmol].
    elements : tuple of str
        Chemical elements.
    composition : ndarray (species, elements)
        Atoms in a molecule.
    thermo : ndarray (species, 15)
        The temperature at which the polynomials meet [K], seven NASA coefficients below it, seven above.
    temperatures : ndarray (species, 2)
        Range of the polynomials [K].
    pressure : float
        Of the standard state [Pa].
    reactions : tuple of Reaction
        In the order of the file.
    geometry : tuple of str
        ``atom``, ``linear``, ``nonlinear``, or nothing where the file has no transport data.
    well_depth : ndarray (species,)
        Depth of the Lennard-Jones potential [J]; NaN without transport data, as in the following.
    diameter : ndarray (species,)
        Of the Lennard-Jones potential [m].
    dipole : ndarray (species,)
        Dipole moment [C m].
    polarizability : ndarray (species,)
        [m3].
    rotational_relaxation : ndarray (species,)
        Collision number at 298 K [1].
    """

    source: str
    names: tuple[str, ...]
    weights: NDArray[np.float64]
    elements: tuple[str, ...]
    composition: NDArray[np.float64]
    thermo: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    pressure: float
    reactions: tuple[Reaction, ...]
    geometry: tuple[str, ...]
    well_depth: NDArray[np.float64]
    diameter: NDArray[np.float64]
    dipole: NDArray[np.float64]
    polarizability: NDArray[np.float64]
    rotational_relaxation: NDArray[np.float64]

    def index(self, name: str) -> int:
        """Give the place of a species.

        Raises
        ------
        PluginError
            If there is none of this name.
        """
        if name not in self.names:
            raise PluginError(f'There is no species "{name}" in {self.source}.{did_you_mean(name, self.names)}')
        return self.names.index(name)


def read_mechanism(path_or_name: str | Path, phase: str | None = None) -> Mechanism:
    """Read a phase of a mechanism file.

    Parameters
    ----------
    path_or_name : str or Path
        A file, or the name of a shipped one, ``"h2o2.yaml"``.
    phase : str, optional
        Its name; the first of the file if None.

    Raises
    ------
    PluginError
        If there is no such file or phase, or it holds what is not computed here: other equations of state, other
        thermodynamics, reactions of other forms. The message names the file and the species or reaction.

    Collective: no.
    """
    path = found(path_or_name, Path())
    try:
        return _read(path, phase)
    except PluginError as error:
        raise PluginError(f"{path}: {error}") from None
    except _MISSHAPEN as error:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise PluginError(
            f"{path}: something in the file is not of the shape that Cantera's YAML has ({said}). Compare it with "
            f"{SHIPPED / 'h2o2.yaml'}."
        ) from error


def _read(path: Path, phase: str | None) -> Mechanism:
    chosen = _phase(path, phase)
    if chosen.get("thermo") != "ideal-gas":
        raise PluginError(
            f'phase "{chosen["name"]}" has thermo: {chosen.get("thermo")}, and only ideal-gas is computed here. '
            "Choose another phase by its name."
        )
    species = list(_species(path, chosen))
    names = tuple(str(entry["name"]) for entry, _ in species)
    if not names or len(set(names)) < len(names):
        raise PluginError(f'phase "{chosen["name"]}" has no species, or one of them twice. Check its list of species.')
    reactions = tuple(_reactions(path, chosen, names))
    weights = _atomic_weights(path)
    elements = tuple(dict.fromkeys(symbol for entry, _ in species for symbol in entry["composition"]))
    for symbol in elements:
        if symbol not in weights:
            raise PluginError(f'the weight of the element "{symbol}" is not known. Give it in a section "elements".')
    composition = np.array(
        [[float(entry["composition"].get(symbol, 0)) for symbol in elements] for entry, _ in species]
    )
    _balance(reactions, names, composition)
    thermo = [_thermo(entry, units) for entry, units in species]
    pressures = {each.pressure for each in thermo}
    if len(pressures) > 1:
        raise PluginError("species have standard states at different pressures, which is not computed here.")
    transport = np.array([_transport(entry) for entry, _ in species]).T.copy()
    return Mechanism(
        f"{path.name}, phase {chosen['name']}",
        names,
        composition @ [weights[symbol] for symbol in elements],
        elements,
        composition,
        np.array([each.coefficients for each in thermo]),
        np.array([each.range for each in thermo]),
        pressures.pop(),
        reactions,
        tuple(str(entry.get("transport", {}).get("geometry", "")) for entry, _ in species),
        *transport,
    )


def _phase(path: Path, name: str | None) -> Mapping[str, Any]:
    phases = {str(entry["name"]): entry for entry in document_of(path).get("phases", [])}
    if not phases:
        raise PluginError('the file has no section "phases", so it is not a mechanism that can be used as it is.')
    if name is not None and name not in phases:
        raise PluginError(f'there is no phase "{name}".{did_you_mean(name, phases)}')
    return phases[name] if name is not None else next(iter(phases.values()))


def _species(path: Path, phase: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], Units]]:
    """Yield the entries of the species of a phase, each with the units in force there."""
    allowed = phase.get("elements")
    for section in sections(phase.get("species", "all"), "species"):
        there = {str(entry["name"]): (entry, units) for entry, units in entries(path, section.where)}
        wanted = list(there) if section.what == "all" else [str(name) for name in section.what]
        for name in wanted:
            if name not in there:
                raise PluginError(f'species "{name}" is not in {section.where}.{did_you_mean(name, there)}')
            undeclared = set(there[name][0].get("composition", {})) - set(allowed or there[name][0]["composition"])
            if not undeclared:
                yield there[name]
            elif not phase.get("skip-undeclared-elements"):
                raise PluginError(
                    f'species "{name}" has {undeclared.pop()}, which the phase does not list in elements.'
                )


def _reactions(path: Path, phase: Mapping[str, Any], names: tuple[str, ...]) -> Iterable[Reaction]:
    """Yield the reactions of a phase, checked against its species."""
    if "kinetics" not in phase:
        return
    if phase["kinetics"] not in ("gas", "bulk"):
        raise PluginError(f"kinetics: {phase['kinetics']} is not computed here, only gas.")
    for section in sections(phase.get("reactions", "all"), "reactions"):
        if section.what == "none":
            continue
        if section.what not in ("all", "declared-species"):
            raise PluginError(f'reactions: {section.what} means nothing; write "all", "declared-species" or "none".')
        for entry, units in entries(path, section.where):
            reaction = read_reaction(entry, units)
            unknown = sorted({*reaction.reactants, *reaction.products} - set(names))
            if not unknown:
                yield _collided(reaction, names, bool(phase.get("skip-undeclared-third-bodies")))
            elif section.what == "all":
                raise PluginError(
                    f'reaction "{reaction.equation}" has the species "{unknown[0]}", which the phase does not list. '
                    'Write "reactions: declared-species" to leave such reactions out.'
                )


def _collided(reaction: Reaction, names: tuple[str, ...], skip: bool) -> Reaction:
    unknown = sorted(set(reaction.colliders or ()) - set(names))
    if not unknown:
        return reaction
    if not skip:
        raise PluginError(
            f'reaction "{reaction.equation}" has an efficiency for "{unknown[0]}", which the phase does not list. '
            'Write "skip-undeclared-third-bodies: true" into the phase to leave it out.'
        )
    known = {name: value for name, value in (reaction.colliders or {}).items() if name in names}
    return Reaction(**{**vars(reaction), "colliders": known})


def _balance(reactions: Iterable[Reaction], names: tuple[str, ...], composition: NDArray[np.float64]) -> None:
    place = {name: i for i, name in enumerate(names)}
    for reaction in reactions:
        change = np.zeros(composition.shape[1])
        for sign, side in ((-1.0, reaction.reactants), (1.0, reaction.products)):
            for name, number in side.items():
                change += sign * number * composition[place[name]]
        if np.abs(change).max() > 1e-4:
            raise PluginError(f'reaction "{reaction.equation}" makes or destroys atoms. Correct its equation.')


@dataclass(frozen=True)
class _Thermo:
    coefficients: list[float]
    range: list[float]
    pressure: float


def _thermo(entry: Mapping[str, Any], units: Units) -> _Thermo:
    given = entry.get("thermo", {})
    if given.get("model") != "NASA7":
        raise PluginError(
            f'species "{entry["name"]}" has thermodynamics of the model {given.get("model")}, and only NASA7 '
            "is computed here. Convert it, or leave the species out of the phase."
        )
    bounds = [units.of(value, "temperature") for value in given["temperature-ranges"]]
    data = [[float(value) for value in row] for row in given["data"]]
    if len(bounds) != len(data) + 1 or len(data) not in (1, 2) or any(len(row) != 7 for row in data):
        raise PluginError(f'species "{entry["name"]}": NASA7 has seven numbers for each of one or two ranges.')
    return _Thermo([bounds[1], *data[0], *data[-1]], [bounds[0], bounds[-1]],
                   units.of(given.get("reference-pressure", 101325.0), "pressure"))  # fmt: skip


def _transport(entry: Mapping[str, Any]) -> list[float]:
    given = entry.get("transport")
    if given is None:
        return [float("nan")] * len(_TRANSPORT)
    return [float(given.get(key, 0.0)) * factor for key, factor in zip(_TRANSPORT, _SI, strict=True)]


def _atomic_weights(path: Path) -> dict[str, float]:
    own = document_of(path).get("elements", [])
    return {**ATOMIC_WEIGHTS, **{str(entry["symbol"]): float(entry["atomic-weight"]) for entry in own}}
