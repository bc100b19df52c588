"""Units of mechanism files: what a number means, in the SI with kmol and K.

The names and defaults are those of Cantera's YAML (https://cantera.org/stable/yaml/general.html): a file, a section or
an entry may carry ``units:``, and any quantity may be a string with its own, ``"3.6e13 cm^3/mol/s"``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from coupler.errors import PluginError, did_you_mean

GAS_CONSTANT = 8314.46261815324  # J/(kmol K)
AVOGADRO = 6.02214076e26  # 1/kmol
BOLTZMANN = 1.380649e-23  # J/K

# Factor to the SI and powers of (m, kg, s, K, kmol).
_LENGTH, _MASS, _TIME = (1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0)
_TEMPERATURE: tuple[float, ...] = (0, 0, 0, 1, 0)
_QUANTITY = (0, 0, 0, 0, 1)
_ENERGY: tuple[float, ...] = (2, 1, -2, 0, 0)
_PRESSURE = (-1, 1, -2, 0, 0)
_MOLAR_ENERGY: tuple[float, ...] = (2, 1, -2, 0, -1)
_UNITS: dict[str, tuple[float, tuple[float, ...]]] = {
    "1": (1.0, (0, 0, 0, 0, 0)),
    "m": (1.0, _LENGTH),
    "cm": (1e-2, _LENGTH),
    "mm": (1e-3, _LENGTH),
    "um": (1e-6, _LENGTH),
    "nm": (1e-9, _LENGTH),
    "angstrom": (1e-10, _LENGTH),
    "kg": (1.0, _MASS),
    "g": (1e-3, _MASS),
    "s": (1.0, _TIME),
    "ms": (1e-3, _TIME),
    "us": (1e-6, _TIME),
    "ns": (1e-9, _TIME),
    "min": (60.0, _TIME),
    "hr": (3600.0, _TIME),
    "K": (1.0, _TEMPERATURE),
    "kmol": (1.0, _QUANTITY),
    "mol": (1e-3, _QUANTITY),
    "gmol": (1e-3, _QUANTITY),
    "mmol": (1e-6, _QUANTITY),
    "molec": (1.0 / AVOGADRO, _QUANTITY),
    "molecule": (1.0 / AVOGADRO, _QUANTITY),
    "J": (1.0, _ENERGY),
    "kJ": (1e3, _ENERGY),
    "MJ": (1e6, _ENERGY),
    "cal": (4.184, _ENERGY),
    "kcal": (4184.0, _ENERGY),
    "erg": (1e-7, _ENERGY),
    "eV": (1.602176634e-19, _ENERGY),
    "Pa": (1.0, _PRESSURE),
    "kPa": (1e3, _PRESSURE),
    "MPa": (1e6, _PRESSURE),
    "bar": (1e5, _PRESSURE),
    "atm": (101325.0, _PRESSURE),
    "torr": (101325.0 / 760.0, _PRESSURE),
    "dyn/cm^2": (0.1, _PRESSURE),
}
_DEFAULTS = {
    "length": "m",
    "mass": "kg",
    "time": "s",
    "temperature": "K",
    "quantity": "kmol",
    "energy": "J",
    "pressure": "Pa",
}
_FACTOR = re.compile(r"\s*([*/]?)\s*(1|[A-Za-z]+)\s*\^?\s*(-?\d+(?:\.\d+)?)?")
_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?)\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class _Unit:
    factor: float
    powers: tuple[float, ...]


@dataclass(frozen=True)
class _Quantity:
    number: float
    unit: _Unit | None


class Units:
    """The units in force at one place of a file.

    Parameters
    ----------
    given : mapping of str to str
        What the file says: ``{length: cm, quantity: mol, activation-energy: cal/mol}``.
    beyond : Units, optional
        What holds around that place, where ``given`` says nothing.

    Raises
    ------
    PluginError
        If a dimension or a unit is unknown.
    """

    def __init__(self, given: Mapping[str, str], beyond: "Units | None" = None) -> None:
        known = {*_DEFAULTS, "activation-energy"}
        for name in given:
            if name not in known:
                raise PluginError(f'"{name}" is no dimension with units.{did_you_mean(name, known)}')
        self._names: dict[str, str] = {
            **(beyond._names if beyond else _DEFAULTS),
            **{name: str(unit) for name, unit in given.items()},
        }
        for name in given:
            self._unit(name)

    def of(self, value: object, dimension: str) -> float:
        """Give a quantity in the SI; a bare number is in the unit in force for its dimension.

        Parameters
        ----------
        value : float or str
            ``1.0`` or ``"1 atm"``.
        dimension : str
            ``"temperature"``, ``"pressure"``, ...

        Raises
        ------
        PluginError
            If it is not a number or of another dimension.

        Collective: no.
        """
        quantity = _split(value)
        number, unit = quantity.number, quantity.unit
        if unit is None:
            return number * self._unit(dimension).factor
        if unit.powers != self._unit(dimension).powers:
            raise PluginError(f'"{value}" is not a {dimension}.')
        return number * unit.factor

    def rate(self, value: object, order: float) -> float:
        """Give a pre-exponential factor in (m3/kmol)^(order - 1)/s; ``order`` counts third bodies."""
        quantity = _split(value)
        number, unit = quantity.number, quantity.unit
        volume = _power(self._unit("length"), 3.0)
        concentration = _times(volume, _power(self._unit("quantity"), -1.0))
        expected = _times(_power(concentration, order - 1.0), _power(self._unit("time"), -1.0))
        if unit is None:
            return number * expected.factor
        if unit.powers != expected.powers:
            raise PluginError(f'"{value}" has not the units of a rate constant of order {order:g}.')
        return number * unit.factor

    def activation_temperature(self, value: object) -> float:
        """Give an activation energy divided by the gas constant [K]: from K, from energy per amount or per molecule."""
        quantity = _split(value)
        number, unit = quantity.number, quantity.unit
        if unit is None:
            unit = self._unit("activation-energy")
        powers: tuple[float, ...] = unit.powers
        if powers == _TEMPERATURE:
            return number * unit.factor
        if powers == _MOLAR_ENERGY:
            return number * unit.factor / GAS_CONSTANT
        if powers == _ENERGY:
            return number * unit.factor / BOLTZMANN
        raise PluginError(f'"{value}" is not an activation energy: give it in K, J/kmol, cal/mol or eV.')

    def _unit(self, dimension: str) -> _Unit:
        if dimension == "activation-energy" and dimension not in self._names:
            return _times(self._unit("energy"), _power(self._unit("quantity"), -1.0))
        return _parsed(self._names[dimension])


def _split(value: object) -> _Quantity:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _Quantity(float(value), None)
    found = _NUMBER.fullmatch(str(value))
    if found is None:
        raise PluginError(f'"{value}" is not a number, nor a number with a unit.')
    number = float(found[1].replace("d", "e").replace("D", "e"))
    return _Quantity(number, _parsed(found[2]) if found[2].strip() else None)


def _parsed(text: str) -> _Unit:
    if text in _UNITS:
        return _Unit(*_UNITS[text])
    unit, place = _Unit(1.0, (0.0,) * 5), 0
    while place < len(text.rstrip()):
        found = _FACTOR.match(text, place)
        if found is None or found[2] not in _UNITS:
            name = found[2] if found else text[place:]
            raise PluginError(f'"{name}" in "{text}" is no unit that is known.{did_you_mean(name, _UNITS)}')
        power = float(found[3] or 1.0) * (-1.0 if found[1] == "/" else 1.0)
        unit = _times(unit, _power(_Unit(*_UNITS[found[2]]), power))
        place = found.end()
    return unit


def _times(a: _Unit, b: _Unit) -> _Unit:
    return _Unit(a.factor * b.factor, tuple(x + y for x, y in zip(a.powers, b.powers, strict=True)))


def _power(a: _Unit, power: float) -> _Unit:
    return _Unit(a.factor**power, tuple(x * power for x in a.powers))
