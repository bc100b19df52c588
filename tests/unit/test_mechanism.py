"""Reading mechanism files: what is understood, and what is refused by its name."""

from pathlib import Path
from typing import Any

import cantera
import numpy as np
import pytest

from coupler.errors import PluginError
from coupler.kernels import rates
from coupler.kernels.mechanism import read_mechanism
from coupler.kernels.mechanism_file import SHIPPED
from coupler.kernels.reactions import read_reaction
from coupler.kernels.units import Units

CGS = Units({"length": "cm", "quantity": "mol", "activation-energy": "cal/mol"})
DATA = Path(cantera.__file__).parent / "data"

SPECIES = """
species:
- name: "NO"
  composition: {N: 1, O: 1}
  thermo: &thermo
    model: NASA7
    temperature-ranges: [200.0, 1000.0, 3500.0]
    data: [[3.5, 0, 0, 0, 0, -1e3, 4.0], [3.5, 0, 0, 0, 0, -1e3, 4.0]]
- name: N
  composition: {N: 1}
  thermo: *thermo
- name: O
  composition: {O: 1}
  thermo: *thermo
"""
PHASE = "phases: [{name: gas, thermo: ideal-gas, species: [NO, N, O], kinetics: gas}]\n"


def _written(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def _entry(*equation: str, **given: Any) -> dict[str, Any]:
    return {
        "equation": "".join(equation) or "O + H2 <=> H + OH",
        "rate-constant": {"A": 1.0, "b": 0.0, "Ea": 0.0},
        **given,
    }


@pytest.mark.parametrize("name", ["h2o2.yaml", "h2no.yaml"])
def test_shipped_mechanisms_are_what_cantera_reads(name: str) -> None:
    mechanism, gas = read_mechanism(name), cantera.Solution(str(SHIPPED / name))

    assert list(mechanism.names) == gas.species_names
    assert [reaction.equation.count("M") for reaction in mechanism.reactions] == [
        equation.count("M") for equation in gas.reaction_equations()
    ]
    np.testing.assert_allclose(mechanism.weights, gas.molecular_weights, rtol=1e-14)
    for i, element in enumerate(mechanism.elements):
        atoms = [gas.n_atoms(species, element) for species in gas.species_names]
        np.testing.assert_array_equal(mechanism.composition[:, i], atoms)


def test_the_shipped_subset_has_every_reaction_of_h_o_n_and_ar_of_the_whole() -> None:
    whole, part = read_mechanism(DATA / "gri30.yaml"), read_mechanism("h2no.yaml")

    inside = [reaction for reaction in whole.reactions if {*reaction.reactants, *reaction.products} <= set(part.names)]

    assert [reaction.equation for reaction in inside] == [reaction.equation for reaction in part.reactions]
    assert [reaction.rate for reaction in inside] == [reaction.rate for reaction in part.reactions]


def test_transport_data_are_in_the_si() -> None:
    mechanism, gas = read_mechanism("h2o2.yaml"), cantera.Solution(str(SHIPPED / "h2o2.yaml"))

    for i, species in enumerate(gas.species()):
        given = species.transport
        assert mechanism.geometry[i] == given.geometry
        assert mechanism.well_depth[i] == pytest.approx(given.well_depth, rel=1e-9)
        assert mechanism.diameter[i] == pytest.approx(given.diameter, rel=1e-9)
        assert mechanism.dipole[i] == pytest.approx(given.dipole, rel=1e-9)
        assert mechanism.polarizability[i] == pytest.approx(given.polarizability, rel=1e-9)
        assert mechanism.rotational_relaxation[i] == given.rotational_relaxation


def test_other_files_and_their_species_are_found() -> None:
    mechanism = read_mechanism(DATA / "ohn.yaml")

    assert len(mechanism.names) == 18
    assert len(mechanism.reactions) == cantera.Solution("ohn.yaml").n_reactions


@pytest.mark.parametrize(
    ("value", "kelvin"),
    [(1000.0, 503.2195), ("1 kcal/mol", 503.2195), ("500 K", 500.0), ("4.184 kJ/mol", 503.2195), ("0.1 eV", 1160.4518)],
)
def test_activation_energies_come_in_many_units(value: float | str, kelvin: float) -> None:
    assert CGS.activation_temperature(value) == pytest.approx(kelvin, rel=1e-6)


@pytest.mark.parametrize("value", [1e12, "1e12 cm^3/mol/s", "1e6 m^3/mol/s", "1e9 m^3/kmol/s"])
def test_pre_exponential_factors_come_in_many_units(value: float | str) -> None:
    assert CGS.rate(value, 2) == pytest.approx(1e9)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: CGS.rate("1 cm^3/s", 2), "rate constant of order 2"),
        (lambda: CGS.activation_temperature("3 m"), "not an activation energy"),
        (lambda: CGS.rate("1 cm^3/mole/s", 2), '"mole"'),
        (lambda: Units({"lenght": "cm"}), 'Did you mean "length"'),
        (lambda: CGS.of("fast", "pressure"), "not a number"),
        (lambda: CGS.of("3 K", "pressure"), "not a pressure"),
    ],
)
def test_units_that_mean_nothing_are_refused(call, told: str) -> None:
    with pytest.raises(PluginError, match=told):
        call()


def test_colliders_are_read_as_cantera_reads_them() -> None:
    falloff = {"low-P-rate-constant": [1.0, 0, 0], "high-P-rate-constant": [1.0, 0, 0], "type": "falloff"}

    generic = read_reaction(_entry("2 H + M <=> H2 + M", efficiencies={"AR": 0.5}, **{"default-efficiency": 2.0}), CGS)
    named = read_reaction({"equation": "2 OH (+AR) <=> H2O2 (+AR)", **falloff}, CGS)
    explicit = read_reaction(_entry("H + O2 + AR <=> HO2 + AR", type="three-body"), CGS)

    assert (generic.colliders, generic.other_colliders) == ({"AR": 0.5}, 2.0)
    assert (named.colliders, named.other_colliders) == ({"AR": 1.0}, 0.0)
    assert explicit.colliders is None  # mass action with AR is the same
    assert pytest.approx(1e-6) == generic.rate.A
    assert named.low is not None
    assert pytest.approx(1e-3) == named.low.A / named.rate.A


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (_entry(type="pressure-dependent-Arrhenius"), "pressure-dependent-Arrhenius"),
        (_entry(type="Chebyshev"), "Chebyshev"),
        (_entry(type="chemically-activated"), "chemically-activated"),
        (_entry(orders={"H2": 0.5}), "orders"),
        (_entry(SRI={"A": 1}), "SRI"),
        (_entry(effeciencies={"H2": 1}), 'Did you mean "efficiencies"'),
        (_entry("O + H2 -> H + OH"), "not of the form"),
        (_entry("O + H2 + M <=> H + OH"), "M stands on one side"),
        (_entry("2 OH (+M) <=> H2O2 (+M)"), "type: falloff"),
        (_entry("O+H2 <=> H + x OH"), "not a number of molecules"),
        (_entry(**{"rate-constant": {"A": -1.0, "b": 0, "Ea": 0}}), "negative A"),
        (_entry(**{"rate-constant": {"A": 1.0}}), "exactly A, b and Ea"),
        (_entry(type="three-body"), "same collider"),
    ],
)
def test_reactions_of_other_forms_are_refused_by_name(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(PluginError, match=told) as refusal:
        read_reaction(entry, CGS)

    assert str(entry["equation"]) in str(refusal.value)


def test_a_duplicate_may_have_a_negative_factor() -> None:
    negative = _entry(duplicate=True, **{"rate-constant": {"A": -1.0, "b": 0, "Ea": 0}})

    assert read_reaction(negative, CGS).rate.A < 0


def test_no_is_nitric_oxide_and_1e5_a_number(tmp_path: Path) -> None:
    reaction = "reactions: [{equation: N + O <=> NO, rate-constant: {A: 1e5, b: 0, Ea: 0}}]\n"
    mechanism = read_mechanism(_written(tmp_path, PHASE + SPECIES.replace('"NO"', "NO") + reaction))

    assert mechanism.names == ("NO", "N", "O")
    assert mechanism.reactions[0].rate.A == 1e5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("phases: [{", "not YAML"),
        ("- 1\n", "not a mechanism"),
        (SPECIES, 'no section "phases"'),
        (PHASE.replace("ideal-gas", "Redlich-Kwong") + SPECIES, "Redlich-Kwong"),
        (PHASE.replace("O]", "O2]") + SPECIES, 'Did you mean "O"'),
        (PHASE.replace("O]", "O, O]") + SPECIES, "twice"),
        (PHASE + SPECIES, 'no section "reactions"'),
        (PHASE + SPECIES.replace("NASA7", "Shomate") + "reactions: []", "Shomate"),
        (PHASE + SPECIES + "reactions: [{equation: N + O <=> 2 NO, rate-constant: [1, 0, 0]}]", "atoms"),
        (PHASE + SPECIES + "reactions: [{equation: N + O <=> N2O, rate-constant: [1, 0, 0]}]", "N2O"),
        (
            PHASE + SPECIES + "reactions: [{equation: N + O + M <=> NO + M, rate-constant: [1, 0, 0], "
            "efficiencies: {HE: 2}}]",
            "skip-undeclared-third-bodies",
        ),
    ],
)
def test_wrong_files_are_refused_with_their_name(tmp_path: Path, text: str, told: str) -> None:
    path = _written(tmp_path, text)

    with pytest.raises(PluginError, match=told) as refusal:
        read_mechanism(path)

    assert str(path) in str(refusal.value)


def test_a_missing_file_and_a_missing_phase_name_what_there_is() -> None:
    with pytest.raises(PluginError, match=r"h2no\.yaml"):
        read_mechanism("h2o3.yaml")
    with pytest.raises(PluginError, match='Did you mean "ohmech"'):
        read_mechanism("h2o2.yaml", phase="ohmec")


def test_four_molecules_on_a_side_are_refused(tmp_path: Path) -> None:
    reaction = "reactions: [{equation: 4 O <=> 2 O + 2 O, rate-constant: [1, 0, 0]}]\n"
    mechanism = read_mechanism(_written(tmp_path, PHASE + SPECIES + reaction))

    with pytest.raises(PluginError, match="more than three molecules"):
        rates.tables(mechanism)


def test_refusal_of_a_pressure_dependent_mechanism_names_file_and_reaction() -> None:
    with pytest.raises(PluginError, match=r"n-hexane-NUIG-2015\.yaml: Reaction \".*<=>.*pressure-dependent-Arrhenius"):
        read_mechanism(DATA / "example_data" / "n-hexane-NUIG-2015.yaml")
