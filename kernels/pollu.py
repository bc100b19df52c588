"""The mechanism POLLU: 20 species of the lower air and their 25 reactions, as data.

J. G. Verwer, "Gauss-Seidel iteration for stiff ODEs from chemical kinetics", SIAM J. Sci. Comput. 15 (1994) 1243;
problem POLLU of F. Mazzia, C. Magherini, "Test Set for Initial Value Problem Solvers", release 2.4 (2008).
"""

from typing import NamedTuple


class Reaction(NamedTuple):
    """One reaction of mass action.

    Attributes
    ----------
    reactants, products : str
        Species, a space between two; one that is made twice stands twice.
    rate : float
        Its constant [1/min], or [1/(ppm min)] with two reactants; at ``sun`` = 1 if ``light`` drives it.
    light : bool
    """

    reactants: str
    products: str
    rate: float
    light: bool = False


# In the order of the test set's y1 to y20.
SPECIES = (
    "NO2", "NO", "O3P", "O3", "HO2", "OH", "HCHO", "CO", "ALD", "MEO2",
    "C2O3", "CO2", "PAN", "CH3O", "HNO3", "O1D", "SO2", "SO4", "NO3", "N2O5",
)  # fmt: skip
REACTIONS = (
    Reaction("NO2", "NO O3P", 0.35, light=True),
    Reaction("NO O3", "NO2", 26.6),
    Reaction("HO2 NO", "NO2 OH", 1.23e4),
    Reaction("HCHO", "HO2 HO2 CO", 8.6e-4, light=True),
    Reaction("HCHO", "CO", 8.2e-4, light=True),
    Reaction("HCHO OH", "HO2 CO", 1.5e4),
    Reaction("ALD", "MEO2 HO2 CO", 1.3e-4, light=True),
    Reaction("ALD OH", "C2O3", 2.4e4),
    Reaction("C2O3 NO", "NO2 MEO2 CO2", 1.65e4),
    Reaction("C2O3 NO2", "PAN", 9e3),
    Reaction("PAN", "C2O3 NO2", 0.022),
    Reaction("MEO2 NO", "CH3O NO2", 1.2e4),
    Reaction("CH3O", "HCHO HO2", 1.88),
    Reaction("NO2 OH", "HNO3", 1.63e4),
    Reaction("O3P", "O3", 4.8e6),
    Reaction("O3", "O1D", 3.5e-4, light=True),
    Reaction("O3", "O3P", 0.0175, light=True),
    Reaction("O1D", "OH OH", 1e8),
    Reaction("O1D", "O3P", 4.44e11),
    Reaction("SO2 OH", "SO4 HO2", 1240.0),
    Reaction("NO3", "NO", 2.1, light=True),
    Reaction("NO3", "NO2 O3P", 5.78, light=True),
    Reaction("NO2 O3", "NO3", 0.0474),
    Reaction("NO3 NO2", "N2O5", 1780.0),
    Reaction("N2O5", "NO3 NO2", 3.12),
)
# Of these there are 1e-8 to 1e-5 ppm by day.
RADICALS = ("HO2", "OH", "MEO2", "C2O3", "CH3O")
# Made by reactions and used by none.
PRODUCTS = ("CO", "CO2", "HNO3", "SO4")
# What the test set starts from [ppm]; the other species start at zero.
BACKGROUND = {"NO": 0.2, "O3": 0.04, "HCHO": 0.1, "CO": 0.3, "ALD": 0.01, "SO2": 0.007}
# Atoms that no reaction of the table makes or takes: the null space of its stoichiometry has no other element.
CONSERVED = {
    "nitrogen": {"NO2": 1.0, "NO": 1.0, "PAN": 1.0, "HNO3": 1.0, "NO3": 1.0, "N2O5": 2.0},
    "carbon": {"HCHO": 1.0, "CO": 1.0, "ALD": 2.0, "MEO2": 1.0, "C2O3": 2.0, "CO2": 1.0, "PAN": 2.0, "CH3O": 1.0},
    "sulphur": {"SO2": 1.0, "SO4": 1.0},
}
