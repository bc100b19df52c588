"""Rates and integration of gas chemistry, beside Cantera."""

from functools import cache

import cantera
import numpy as np
import pytest
from numpy.typing import NDArray

from coupler.kernels import kinetics, rates
from coupler.kernels.mechanism import Mechanism, read_mechanism
from coupler.kernels.mechanism_file import SHIPPED

ATM = cantera.one_atm
STOICHIOMETRIC = "H2:2, O2:1, N2:3.76"
NAMES = ("h2o2.yaml", "h2no.yaml")


@cache
def _mechanism(name: str = "h2o2.yaml") -> Mechanism:
    return read_mechanism(name)


@cache
def _tables(name: str = "h2o2.yaml") -> rates.Tables:
    return rates.tables(_mechanism(name))


def _gas(name: str = "h2o2.yaml") -> cantera.Solution:
    return cantera.Solution(str(SHIPPED / name))


def _random(name: str, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of temperature and mass fractions, a third of them zero, and pressures."""
    rng = np.random.default_rng(5)
    species = len(_mechanism(name).names)
    fractions = 10.0 ** rng.uniform(-8.0, 0.0, (number, species)) * (rng.random((number, species)) < 2 / 3)
    fractions[:, 0] += 1e-3
    fractions /= fractions.sum(axis=1, keepdims=True)
    return np.column_stack([rng.uniform(300.0, 3000.0, number), fractions]), ATM * 10.0 ** rng.uniform(
        -1.0, 2.0, number
    )


def _after(
    rows: NDArray[np.float64], dt: float, pressure: float = ATM, rtol: float = 1e-8, name: str = "h2o2.yaml"
) -> NDArray[np.float64]:
    rows = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    out, steps = np.empty_like(rows), np.empty(len(rows), dtype=np.int64)
    atol = kinetics.absolute_tolerances(_mechanism(name), rtol, rtol * 1e-8)
    kinetics.advance(rows, np.full(len(rows), pressure), dt, _tables(name), rtol, atol, out, steps)
    return out


def _derivatives(
    rows: NDArray[np.float64], pressures: NDArray[np.float64], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = 1 + kinetics.reacting(_mechanism(name))
    f, jacobian = np.empty((len(rows), size)), np.empty((len(rows), size, size))
    kinetics.derivatives(rows, pressures, _tables(name), size, f, jacobian)
    return f, jacobian


def _row(temperature: float, composition: str = STOICHIOMETRIC) -> NDArray[np.float64]:
    gas = _gas()
    gas.TPX = temperature, ATM, composition
    return np.array([gas.T, *gas.Y])


@pytest.mark.parametrize("name", NAMES)
def test_production_rates_are_canteras(name: str) -> None:
    gas = _gas(name)
    rows, pressures = _random(name, 1000)
    concentrations, theirs, turnover = (np.empty_like(rows[:, 1:]) for _ in range(3))
    for i, (row, pressure) in enumerate(zip(rows, pressures, strict=True)):
        gas.TPY = row[0], pressure, row[1:]
        concentrations[i], theirs[i] = gas.concentrations, gas.net_production_rates
        turnover[i] = np.maximum(gas.creation_rates, gas.destruction_rates)

    ours = np.empty_like(theirs)
    kinetics.production(rows[:, 0].copy(), concentrations, _tables(name), ours)

    # Relative to the larger of creation and destruction; 1e-13 is rounding of some hundred operations.
    assert np.all(np.abs(ours - theirs) <= 1e-11 * turnover)


@pytest.mark.parametrize("name", NAMES)
def test_mixtures_are_canteras(name: str) -> None:
    gas = _gas(name)
    rows, pressures = _random(name, 100)
    weight, density, capacity = np.empty(100), np.empty(100), np.empty(100)
    enthalpies = np.empty_like(rows[:, 1:])

    kinetics.mixture(
        rows[:, 0].copy(), rows[:, 1:].copy(), pressures, _tables(name), weight, density, capacity, enthalpies
    )

    for i, row in enumerate(rows):
        gas.TPY = row[0], pressures[i], row[1:]
        assert weight[i] == pytest.approx(gas.mean_molecular_weight, rel=1e-12)
        assert density[i] == pytest.approx(gas.density, rel=1e-12)
        assert capacity[i] == pytest.approx(gas.cp_mass, rel=1e-12)
        theirs = gas.partial_molar_enthalpies / gas.molecular_weights
        np.testing.assert_allclose(enthalpies[i], theirs, rtol=1e-10, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_jacobian_is_the_slope_of_the_right_hand_side(name: str) -> None:
    rows, pressures = _random(name, 50)
    jacobian = _derivatives(rows, pressures, name)[1]

    for column in range(jacobian.shape[1]):
        width = 1e-6 * np.maximum(np.abs(rows[:, column]), 1e-3)
        ahead, behind = rows.copy(), rows.copy()
        ahead[:, column] += width
        behind[:, column] -= width
        rise = _derivatives(ahead, pressures, name)[0] - _derivatives(behind, pressures, name)[0]
        slope = rise / (ahead - behind)[:, column, None]
        # Central differences of 1e-6 lose ten digits of the largest slope of a row.
        scale = np.abs(jacobian).max(axis=2)
        assert np.all(np.abs(slope - jacobian[:, :, column]) <= 3e-6 * scale)


def test_a_cell_ends_where_cvode_ends_it() -> None:
    gas = _gas()
    gas.TPX = 1400.0, ATM, STOICHIOMETRIC
    net = cantera.ReactorNet([cantera.IdealGasConstPressureReactor(gas, clone=False)])
    net.rtol, net.atol = 1e-10, 1e-18
    row = np.array([gas.T, *gas.Y])

    net.advance(1e-5)

    np.testing.assert_allclose(_after(row, 1e-5)[0], [gas.T, *gas.Y], rtol=1e-6, atol=1e-14)


def test_atoms_mass_and_enthalpy_are_kept() -> None:
    mechanism, gas = _mechanism(), _gas()
    rows = np.array([_row(temperature) for temperature in (300.0, 1100.0, 1500.0, 2500.0)])

    after = _after(rows, 1e-4, rtol=1e-6)

    moles = (after - rows)[:, 1:] / mechanism.weights
    # One Rosenbrock step keeps linear sums to rounding.
    assert np.abs(moles @ mechanism.composition).max() < 1e-14
    assert np.abs(after[:, 1:].sum(axis=1) - 1.0).max() < 1e-13
    for before, end in zip(rows, after, strict=True):
        gas.TPY = before[0], ATM, before[1:]
        enthalpy = gas.enthalpy_mass
        gas.TPY = end[0], ATM, end[1:]
        # cp times the error in T that rtol allows.
        assert abs(gas.enthalpy_mass - enthalpy) < 3e3 * 1e-5 * end[0]


def test_a_row_is_bitwise_the_same_in_any_batch() -> None:
    rows = np.array([_row(temperature) for temperature in np.linspace(900.0, 2600.0, 13)])

    together = _after(rows, 1e-6)

    np.testing.assert_array_equal(together, _after(rows[::-1].copy(), 1e-6)[::-1])
    np.testing.assert_array_equal(together, np.vstack([_after(row, 1e-6) for row in rows]))


def test_no_time_gives_back_the_rows() -> None:
    rows = np.array([_row(300.0), _row(1500.0)])

    np.testing.assert_array_equal(_after(rows, 0.0), rows)


def test_cold_gas_stays_as_it_is() -> None:
    row = _row(300.0)

    np.testing.assert_allclose(_after(row, 1e-3)[0], row, rtol=1e-12, atol=1e-20)


@pytest.mark.parametrize("missing", ["H2:1, N2:1", "O2:1, N2:1", "AR:1", "N2:1", "H2:1", "H2O:1, AR:3"])
def test_gas_without_some_species_is_integrated(missing: str) -> None:
    after = _after(_row(1500.0, missing), 1e-5)

    assert np.isfinite(after).all()
    assert after[0, 1:].sum() == pytest.approx(1.0, abs=1e-13)


def test_inert_gas_keeps_its_mass_fractions_bit_by_bit() -> None:
    row = _row(1300.0, "H2:2, O2:1, AR:3, N2:2")
    argon, nitrogen = (1 + _mechanism().index(name) for name in ("AR", "N2"))

    after = _after(row, 1e-4)[0]

    assert after[argon] == row[argon]
    assert after[nitrogen] == row[nitrogen]
    assert after[0] > 2000.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 1, 9, 10])
def test_what_is_not_finite_comes_back_as_nan_and_harms_no_other(value: float, column: int) -> None:
    rows = np.array([_row(1500.0)] * 3)
    rows[1, column] = value

    after = _after(rows, 1e-6)

    assert np.isnan(after[1]).all()
    np.testing.assert_array_equal(after[0], after[2])
    assert np.isfinite(after[0]).all()


@pytest.mark.parametrize("temperature", [0.0, -10.0])
def test_a_temperature_that_cannot_be_gives_nan(temperature: float) -> None:
    row = _row(1500.0)
    row[0] = temperature

    assert np.isnan(_after(row, 1e-6)).all()


@pytest.mark.parametrize("temperature", [150.0, 4500.0])
def test_beyond_the_range_of_the_polynomials_cantera_is_followed(temperature: float) -> None:
    gas = _gas()
    gas.TPX = temperature, ATM, "H2:2, O2:1, N2:3.76, OH:0.1, H:0.1"
    ours = np.empty((1, 10))

    kinetics.production(np.array([temperature]), gas.concentrations[None], _tables(), ours)

    np.testing.assert_allclose(ours[0], gas.net_production_rates, rtol=1e-9, atol=1e-30)


def test_slightly_negative_mass_fractions_do_no_harm() -> None:
    row = _row(1300.0)
    spoilt = row.copy()
    for name in ("OH", "HO2", "H2O2"):
        spoilt[1 + _mechanism().index(name)] = -1e-10

    np.testing.assert_allclose(_after(spoilt, 1e-6)[0], _after(row, 1e-6)[0], rtol=1e-6, atol=1e-8)


def test_empty_batch_is_allowed() -> None:
    assert _after(np.empty((0, 11)), 1e-6).shape == (0, 11)
