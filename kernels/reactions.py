"""Reactions of a mechanism file, one entry at a time: who reacts, in which form, and with which constants.

Read are elementary and three-body reactions with Arrhenius rates and falloff of Lindemann's and Troe's form, in the
notation of Cantera's YAML (https://cantera.org/stable/yaml/reactions.html). Every other form is refused by its name: a
rate that is left out silently is a wrong answer that nobody sees.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coupler.errors import PluginError, did_you_mean
from coupler.kernels.units import Units

_ARROW = re.compile(r"\s(<=>|=>|=)\s")
_FALLOFF = re.compile(r"\(\+\s*([^\s]+)\)$")
_FORMS = ("elementary", "three-body", "falloff", "Arrhenius", "three-body-Arrhenius")
_KEYS = {
    "equation", "type", "rate-constant", "low-P-rate-constant", "high-P-rate-constant", "efficiencies",
    "default-efficiency", "Troe", "duplicate", "negative-A", "negative-orders", "nonreactant-orders", "orders", "id",
    "note", "units",
}  # fmt: skip


@dataclass(frozen=True)
class Arrhenius:
    """k = A T^b exp(-temperature / T).

    Parameters
    ----------
    A : float
        Pre-exponential factor [(m3/kmol)^(order - 1)/s/K^b]; negative only in one of several duplicates.
    b : float
        Power of the temperature.
    temperature : float
        Activation energy by the gas constant [K].
    """

    A: float
    b: float
    temperature: float


@dataclass(frozen=True)
class Reaction:
    """One reaction, its collider taken out of both sides.

    Parameters
    ----------
    equation : str
        As the file has it.
    reactants, products : dict
        Molecules of each species.
    reversible : bool
        Whether it also runs backwards, by equilibrium.
    rate : Arrhenius
        The rate constant; of falloff the limit of high pressure.
    low : Arrhenius, optional
        Of falloff: the limit of low pressure.
    troe : tuple of float
        A, T3, T1 and T2 (0: without), or empty: Lindemann.
    colliders : dict, optional
        Efficiencies of the third bodies; None where there is no third body.
    other_colliders : float
        Efficiency of all that ``colliders`` does not name.
    """

    equation: str
    reactants: dict[str, float]
    products: dict[str, float]
    reversible: bool
    rate: Arrhenius
    low: Arrhenius | None = None
    troe: tuple[float, ...] = ()
    colliders: dict[str, float] | None = None
    other_colliders: float = 1.0


@dataclass(frozen=True)
class _Equation:
    reactants: dict[str, float]
    products: dict[str, float]
    reversible: bool
    third: str = ""  # "M", a species, or nothing
    falloff: bool = False


def read_reaction(entry: Mapping[str, Any], units: Units) -> Reaction:
    """Read one entry of a ``reactions`` section.

    Parameters
    ----------
    entry : mapping
        As YAML gives it.
    units : Units
        In force around it.

    Raises
    ------
    PluginError
        If the form is not one that is computed here, or constants are missing; the message names the reaction.

    Collective: no.
    """
    text = str(entry.get("equation", ""))
    try:
        return _read(entry, Units(entry.get("units", {}), units), text)
    except PluginError as error:
        raise PluginError(f'Reaction "{text}": {error}') from None


def _read(entry: Mapping[str, Any], units: Units, text: str) -> Reaction:
    kind = str(entry.get("type", "elementary"))
    _refuse(entry, kind)
    equation = _parsed(text)
    if equation.falloff != (kind == "falloff"):
        raise PluginError('it has "(+M)" on both sides exactly if it says type: falloff.')
    # A named collider, as in H + O2 + AR <=> HO2 + AR: by mass action, efficiency 1 for it and 0 for the others.
    named = set(equation.reactants) & set(equation.products)
    if kind.startswith("three-body") and not equation.third and not named:
        raise PluginError("a three-body reaction needs M, or the same collider, on both sides.")
    order = sum(equation.reactants.values()) + (equation.third == "M" and not equation.falloff)
    rates: dict[str, Any] = {}
    if equation.falloff:
        rates = {
            "rate": _arrhenius(entry, "high-P-rate-constant", order, units),
            "low": _arrhenius(entry, "low-P-rate-constant", order + 1, units),
            "troe": _troe(entry),
        }
    else:
        rates = {"rate": _arrhenius(entry, "rate-constant", order, units)}
    sides: dict[str, Any] = {
        "reactants": equation.reactants,
        "products": equation.products,
        "reversible": equation.reversible,
    }
    return Reaction(equation=text, **sides, **rates, **_colliders(entry, equation))


def _refuse(entry: Mapping[str, Any], kind: str) -> None:
    cure = "Take a mechanism without it, or fit it by Arrhenius or Troe rates."
    if kind not in _FORMS:
        raise PluginError(f'rates of the form "{kind}" are not computed here ({", ".join(_FORMS[:3])} are). {cure}')
    for form in ("SRI", "Tsang"):
        if form in entry:
            raise PluginError(f"falloff of the form {form} is not computed here (Lindemann and Troe are). {cure}")
    if "orders" in entry:
        raise PluginError("reaction orders other than the molecules of the equation are not computed here. " + cure)
    for key in entry:
        if key not in _KEYS:
            raise PluginError(f'"{key}" is not understood.{did_you_mean(str(key), _KEYS)}')


def _parsed(text: str) -> _Equation:
    parts = _ARROW.split(f" {text} ")
    if len(parts) != 3:
        raise PluginError('it is not of the form "A + B <=> C", with spaces around + and <=>.')
    left, right = _side(parts[0]), _side(parts[2])
    third, falloff = left.pop("(+)", None), "(+)" in right
    named = right.pop("(+)", None)
    if third != named:
        raise PluginError("it has different colliders in brackets on its sides.")
    reversible = parts[1] != "=>"
    if third is not None:
        return _Equation(left, right, reversible, str(third), falloff)
    if ("M" in left) != ("M" in right):
        raise PluginError("M stands on one side only.")
    if "M" in left:
        if left.pop("M") != 1 or right.pop("M") != 1:
            raise PluginError("more than one M is not computed here. Write one.")
        return _Equation(left, right, reversible, "M")
    return _Equation(left, right, reversible)


def _side(text: str) -> dict[str, Any]:
    """Count the molecules of one side; the collider of a falloff reaction stands under "(+)"."""
    found: dict[str, Any] = {}
    text = text.strip()
    bracket = _FALLOFF.search(text)
    if bracket:
        found["(+)"] = bracket[1]
        text = text[: bracket.start()]
    for term in re.split(r"\s\+\s", text):
        words = term.split()
        number = 1.0
        if len(words) == 2:
            number, words = _count(words[0]), words[1:]
        if len(words) != 1:
            raise PluginError(f'"{term.strip()}" is not a species with the number of its molecules before it.')
        found[words[0]] = found.get(words[0], 0.0) + number
    return found


def _count(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise PluginError(f'"{word}" is not a number of molecules. Put " + " between species.') from None


def _colliders(entry: Mapping[str, Any], equation: _Equation) -> dict[str, Any]:
    given = {str(name): float(value) for name, value in entry.get("efficiencies", {}).items()}
    if equation.third == "M":
        return {"colliders": given, "other_colliders": float(entry.get("default-efficiency", 1.0))}
    if equation.third:
        return {"colliders": {equation.third: 1.0}, "other_colliders": 0.0}
    if any(value != 1.0 for value in given.values()):
        raise PluginError("efficiencies belong to a collider M, and there is none.")
    return {}


def _arrhenius(entry: Mapping[str, Any], key: str, order: float, units: Units) -> Arrhenius:
    given = entry.get(key)
    if isinstance(given, list) and len(given) == 3:
        given = dict(zip(("A", "b", "Ea"), given, strict=True))
    if not isinstance(given, Mapping) or set(given) != {"A", "b", "Ea"}:
        raise PluginError(f"{key} must have exactly A, b and Ea.")
    A = units.rate(given["A"], order)
    if A == 0.0 or not math.isfinite(A):
        raise PluginError(f"{key} has A = {given['A']}. Leave the reaction out instead.")
    if A < 0.0 and (entry.get("type") == "falloff" or not (entry.get("duplicate") or entry.get("negative-A"))):
        raise PluginError(f"{key} has a negative A, which only one of several duplicates without falloff may have.")
    return Arrhenius(A, float(given["b"]), units.activation_temperature(given["Ea"]))


def _troe(entry: Mapping[str, Any]) -> tuple[float, ...]:
    given = entry.get("Troe")
    if given is None:
        return ()
    if not {"A", "T3", "T1"} <= set(given) <= {"A", "T3", "T1", "T2"}:
        raise PluginError("Troe must have A, T3 and T1, and may have T2.")
    return (float(given["A"]), float(given["T3"]), float(given["T1"]), float(given.get("T2", 0.0)))
