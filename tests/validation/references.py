"""Every reference value of the validation suite: what is compared, with what, how closely, and who says so.

One row per number. ``docs/validation.md`` shows the table with what came out and has the sources in full. A test
compares with ``agrees("PROBLEM", "quantity", computed)``; a row that no test compares is named at the end of the table.
"""

import math
from dataclasses import dataclass

from coupler.errors import did_you_mean


@dataclass(frozen=True)
class Reference:
    """One number that a computed one must agree with.

    Parameters
    ----------
    problem, quantity : str
        Which problem, and which number of it; together they are its name.
    value : float
        What it should be.
    tolerance : float
        Largest difference allowed, as a share of ``|value|``; where the value is 0, the difference itself.
    source : str
        Who says so: a publication, or the statement that the value follows from.
    """

    problem: str
    quantity: str
    value: float
    tolerance: float
    source: str

    def difference(self, computed: float) -> float:
        """Tell how far a computed number is off, in the units of ``tolerance``; infinitely if it is not finite."""
        return abs(computed - self.value) / (abs(self.value) or 1.0) if math.isfinite(computed) else math.inf

    def holds(self, computed: float) -> bool:
        """Say whether a computed number is within tolerance."""
        return self.difference(computed) <= self.tolerance


def _components(problem: str, quantity: str, tolerance: float, source: str, *values: float) -> list[Reference]:
    """Give one row per component of a vector: ``quantity`` has its number in place of ``#``."""
    return [
        Reference(problem, quantity.replace("#", str(number)), value, tolerance, source)
        for number, value in enumerate(values, start=1)
    ]


_IVP = "IVP test set 2.4"
_CANTERA = "Cantera 3.2.0"
_GHIA = "Ghia et al. 1982"
_RECOMPUTED = "recomputed"
# What the equations and the scheme promise by themselves.
_SCHEME = "the scheme"
# Eight digits, from one-step tolerances two or three digits tighter; the published values have sixteen.
_EIGHT_DIGITS = 1e-8

REFERENCES = (
    *_components(
        *("OREGO", "y#(360)", _EIGHT_DIGITS, _IVP),
        1.000814870318523,
        1228.178521549917,
        132.0554942846706,
    ),
    *_components(
        *("ROBER", "y#(1e11)", _EIGHT_DIGITS, _IVP),
        0.2083340149701255e-7,
        0.8333360770334713e-13,
        0.9999999791665050,
    ),
    *_components(
        *("HIRES", "y#(321.8122)", _EIGHT_DIGITS, _IVP),
        0.7371312573325668e-3,
        0.1442485726316185e-3,
        0.5888729740967575e-4,
        0.1175651343283149e-2,
        0.2386356198831331e-2,
        0.6238968252742796e-2,
        0.2849998395185769e-2,
        0.2850001604814231e-2,
    ),
    *_components(
        *("POLLU", "y#(60)", _EIGHT_DIGITS, _IVP),
        0.5646255480022769e-1,
        0.1342484130422339,
        0.4139734331099427e-8,
        0.5523140207484359e-2,
        0.2018977262302196e-6,
        0.1464541863493966e-6,
        0.7784249118997964e-1,
        0.3245075353396018,
        0.7494013383880406e-2,
        0.1622293157301561e-7,
        0.1135863833257075e-7,
        0.2230505975721359e-2,
        0.2087162882798630e-3,
        0.1396921016840158e-4,
        0.8964884856898295e-2,
        0.4352846369330103e-17,
        0.6899219696263405e-2,
        0.1007803037365946e-3,
        0.1772146513969984e-5,
        0.5682943292316392e-4,
    ),
    # Round-off of some 15 steps of the integrator, each of which conserves them; relative to the sum.
    Reference("air chemistry", "drift of nitrogen, one day in a cell", 0.0, 1e-12, _SCHEME),
    Reference("air chemistry", "drift of carbon, one day in a cell", 0.0, 1e-12, _SCHEME),
    Reference("air chemistry", "drift of sulphur, one day in a cell", 0.0, 1e-12, _SCHEME),
    Reference("air chemistry", "drift of the mass carried, 10 days", 0.0, 1e-12, _SCHEME),
    # Order 2 in the limit; the limiter takes a part of it at the two extremes of the wave.
    Reference("wind", "order in space, mean error", 2.0, 0.1, "van Leer 1979"),
    Reference("wind", "order of the mixing in space", 2.0, 0.1, _SCHEME),
    Reference("air chemistry", "order of the splitting", 2.0, 0.1, _SCHEME),
    # Emitted NO finds its balance with ozone within a minute: order 2 in steps below that (Sportisse 2000).
    Reference("air chemistry", "order of the splitting, with emissions", 2.0, 0.2, _SCHEME),
    # Asymptotic order 2; a tenth of it for the cells and steps being few.
    Reference("heat", "order in space", 2.0, 0.1, _SCHEME),
    Reference("heat", "order in time", 2.0, 0.1, _SCHEME),
    # Round-off of the additions, which are 1000 in the short run; in the long one it adds up like a random walk.
    Reference("heat", "drift of the heat, 40 steps", 0.0, 1e-12, _SCHEME),
    Reference("heat", "drift of the heat, 10000 steps", 0.0, 1e-12, _SCHEME),
    # y relaxes faster than dt, which costs stiff splittings part of an order (Sportisse 2000).
    Reference("BZ", "order of the splitting", 2.0, 0.2, _SCHEME),
    # Hydrogen and air at 1 or 10 atm, H2:O2:N2 = 2:1:3.76, the moment of the fastest rise of temperature.
    Reference("H2/air", "ignition from 1000 K, 1 atm [s]", 3.1198e-4, 5e-3, _CANTERA),
    Reference("H2/air", "ignition from 1200 K, 1 atm [s]", 4.5338e-5, 5e-3, _CANTERA),
    Reference("H2/air", "ignition from 1000 K, 10 atm [s]", 8.727e-3, 5e-3, _CANTERA),
    Reference("H2/air", "ignition from 1200 K, 10 atm [s]", 6.377e-5, 5e-3, _CANTERA),
    # Of 8 micrometres a cell; half of it and half the step are half as far off.
    Reference("H2/air", "flame speed, over the free flame's", 1.0, 0.03, _CANTERA),
    # Of 1000 random states each, over the larger of creation and destruction.
    Reference("kinetics", "production rates, gri30.yaml", 0.0, 1e-8, _CANTERA),
    Reference("kinetics", "production rates, gri30_highT.yaml", 0.0, 1e-8, _CANTERA),
    Reference("kinetics", "production rates, ohn.yaml", 0.0, 1e-8, _CANTERA),
    Reference("kinetics", "production rates, h2o2.yaml", 0.0, 1e-8, _CANTERA),
    # Three standard errors of the reference (0.013 and 0.005) and of 128 members (0.012 and 0.006) together.
    Reference("Lorenz-96", "mean of X", 3.757, 0.014, _RECOMPUTED),
    Reference("Lorenz-96", "deviation of X", 5.065, 0.0046, _RECOMPUTED),
    # Known to 0.001.
    Reference("Kuramoto-Sivashinsky", "largest Lyapunov exponent", 0.0485, 0.0206, _RECOMPUTED),
    # 48 cells across at Re = 100, 128 at Re = 1000; the error falls with the size of a cell.
    Reference("cavity", "u at y = 0.1719, Re = 100", -0.10150, 0.059, _GHIA),
    Reference("cavity", "u at y = 0.5, Re = 100", -0.20581, 0.029, _GHIA),
    Reference("cavity", "u at y = 0.1719, Re = 1000", -0.38289, 0.039, _GHIA),
    Reference("cavity", "u at y = 0.5, Re = 1000", -0.06080, 0.24, _GHIA),
    Reference("cavity", "drift of the mass", 0.0, 1e-12, _SCHEME),
    Reference("Taylor-Green", "error of the velocity, 64 cells", 0.0, 2e-3, _SCHEME),
    Reference("Gray-Scott", "drift of u + v without feed and kill", 0.0, 1e-13, _SCHEME),
)


def references(problem: str) -> tuple[Reference, ...]:
    """Give all rows of a problem in their order; raises KeyError with the nearest name if there is none."""
    rows = tuple(row for row in REFERENCES if row.problem == problem)
    if not rows:
        problems = dict.fromkeys(row.problem for row in REFERENCES)
        raise KeyError(f'no reference values of "{problem}".{did_you_mean(problem, problems)}')
    return rows


def reference(problem: str, quantity: str) -> Reference:
    """Give one row; raises KeyError with the nearest name if there is none."""
    rows = {row.quantity: row for row in references(problem)}
    if quantity not in rows:
        raise KeyError(f'no reference value "{quantity}" of {problem}.{did_you_mean(quantity, rows)}')
    return rows[quantity]
