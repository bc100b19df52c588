"""Air chemistry: POLLU's reference solution, what it conserves, its sun, its wind, and wrong uses."""

import math

import numpy as np
import pytest
from mpi4py import MPI
from scipy.integrate import solve_ivp
from scipy.linalg import null_space

from coupler.errors import PluginError
from coupler.grid import Grid
from coupler.kernel import check_kernel, evaluate_truth, gather
from coupler.kernels.air_chemistry import AirChemistry, _jacobian, _pattern, _rhs
from coupler.kernels.pollu import BACKGROUND, CONSERVED, PRODUCTS, REACTIONS, SPECIES
from coupler.kernels.wind import HALO, Wind, carry

TEST_SET = np.array([[*(BACKGROUND.get(name, 0.0) for name in SPECIES), 1.0]])
DAY = 1440.0


def make_grid(shape, periodic=True, length=None):
    return Grid(shape, length=length, periodic=periodic, halo=HALO, comm=MPI.COMM_SELF)


def started(kernel, grid):
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    return state


def run(kernel, grid, dt, steps):
    state = started(kernel, grid)
    for _ in range(steps):
        kernel.step(state, grid, dt, evaluate_truth)
        state.time += dt
    return state


def stoichiometry():
    """What every reaction makes less what it uses, (20, 25)."""
    made = np.zeros((len(SPECIES), len(REACTIONS)))
    for number, reaction in enumerate(REACTIONS):
        for name in reaction.products.split():
            made[SPECIES.index(name), number] += 1.0
        for name in reaction.reactants.split():
            made[SPECIES.index(name), number] -= 1.0
    return made


def weights(name):
    return np.array([CONSERVED[name].get(species, 0.0) for species in SPECIES])


def elements():
    """What the cells of a day meet: every second hour of a coarse grid around the world."""
    kernel, grid = AirChemistry(time_across=DAY), make_grid((12, 6), (True, False), (28e3, 7e3))
    state, rows = started(kernel, grid), []
    for number in range(144):
        if number % 12 == 6:
            rows.append(gather(kernel.reaction, state))
        kernel.step(state, grid, 10.0, evaluate_truth)
        state.time += 10.0
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def met():
    return elements()


def test_kernel_honours_its_contract():
    check_kernel(AirChemistry())


def test_the_jacobian_is_the_slope_of_the_rates_and_zero_outside_of_its_pattern():
    draw = np.random.default_rng(2)
    # All of them about 1: the true constants span twelve decades, and differences would drown in rounding.
    y, constants, jacobian = draw.uniform(0.5, 2.0, 20), draw.uniform(0.5, 2.0, len(REACTIONS)), np.empty((20, 20))
    _jacobian(y, constants, jacobian)

    for column in range(20):
        ends, rates = np.stack([y, y]), np.empty((2, 20))
        ends[:, column] *= [0.5, 1.5]
        for end, rate in zip(ends, rates, strict=True):
            _rhs(end, constants, rate)
        # Rates are of second order in the concentrations, so that central differences are exact but for rounding.
        slope = (rates[1] - rates[0]) / y[column]
        np.testing.assert_allclose(jacobian[:, column], slope, rtol=1e-12, atol=1e-12)
    assert not jacobian[~_pattern()].any()


def test_a_cell_in_a_steady_sun_is_the_test_problem_pollu(agrees):
    kernel = AirChemistry(rtol=1e-10, atol=1e-20)

    end = kernel.react(TEST_SET, 60.0)

    agrees.with_all_of("POLLU", end[0])


def test_truth_is_what_an_independent_integrator_says(met):
    made, light = stoichiometry(), np.array([reaction.light for reaction in REACTIONS])
    used = [[SPECIES.index(name) for name in reaction.reactants.split()] for reaction in REACTIONS]

    def rhs(sun):
        rates = np.array([reaction.rate for reaction in REACTIONS]) * np.where(light, sun, 1.0)
        return lambda t, y: made @ (rates * [np.prod(y[places]) for places in used])

    kernel = AirChemistry(rtol=1e-8, atol=1e-18)
    for row in met[:: len(met) // 5]:
        radau = solve_ivp(rhs(row[-1]), (0.0, 10.0), row[:-1], method="Radau", rtol=1e-9, atol=1e-18)
        ours = kernel.react(row[None], 10.0)[0]
        # Both err by ten times their tolerance of one step, and what is almost nothing by up to 1e-15 ppm.
        np.testing.assert_allclose(ours, radau.y[:, -1], rtol=1e-6, atol=1e-15)


def test_the_declared_sums_are_all_that_the_stoichiometry_conserves():
    free = null_space(stoichiometry().T)

    declared = np.column_stack([weights(name) for name in CONSERVED])

    assert free.shape[1] == len(CONSERVED) == np.linalg.matrix_rank(declared)
    assert not (declared.T @ stoichiometry()).any()


def test_no_reaction_uses_the_products_that_the_step_holds_back():
    used = {name for reaction in REACTIONS for name in reaction.reactants.split()}

    assert set(PRODUCTS) == set(SPECIES) - used


@pytest.mark.parametrize("name", CONSERVED)
def test_atoms_are_conserved_through_day_and_night(name, agrees):
    kernel, cell = AirChemistry(), TEST_SET.copy()
    before = cell[0, :-1] @ weights(name)

    for number in range(144):
        cell[0, -1] = max(math.sin(2.0 * math.pi * number / 144), 0.0)
        cell[:, :-1] = kernel.react(cell, 10.0)

    agrees("air chemistry", f"drift of {name}, one day in a cell", cell[0, :-1] @ weights(name) / before - 1.0)


def test_truth_is_bitwise_the_same_in_any_batch(met):
    kernel, rows = AirChemistry(), met[::20]

    together = kernel.react(rows, 10.0)

    np.testing.assert_array_equal(together, np.concatenate([kernel.react(row[None], 10.0) for row in rows]))


def test_truth_is_more_exact_than_the_tolerance_it_is_the_measure_of(met):
    kernel, exact = AirChemistry(), AirChemistry(rtol=1e-7, atol=1e-16)

    error = kernel.reaction.signature.error(kernel.react(met, 10.0), exact.react(met, 10.0))

    # The worst are ozone or NO in the minutes in which the other uses it up, where a per cent is a matter of seconds.
    assert error.max() < 0.3
    assert error.mean() < 0.05


def test_doing_nothing_is_not_an_answer_within_tolerance(met):
    kernel = AirChemistry()

    error = kernel.reaction.signature.error(met[:, :-1], kernel.react(met, 10.0))

    assert np.mean(error < 1.0) < 0.01


def test_cell_that_is_not_finite_comes_back_as_nan_and_harms_no_other():
    rows = np.repeat(TEST_SET, 3, axis=0)
    rows[1, 0] = np.nan

    values = AirChemistry().react(rows, 10.0)

    np.testing.assert_array_equal(np.isnan(values).any(axis=1), [False, True, False])
    np.testing.assert_array_equal(values[0], values[2])


def test_no_cells_are_an_answer_too():
    assert AirChemistry().react(np.empty((0, 21)), 10.0).shape == (0, 20)


def test_the_sun_rises_at_six_and_stands_highest_at_noon_on_the_equator():
    kernel, grid = AirChemistry(latitude=0.0, declination=0.0, start_time=0.0), make_grid((4,))

    assert not kernel.sun(grid, 5.9 * 60).any()
    np.testing.assert_allclose(kernel.sun(grid, 8 * 60), 0.5)
    np.testing.assert_allclose(kernel.sun(grid, 12 * 60), 1.0)
    assert not kernel.sun(grid, 18.1 * 60).any()


def test_noon_is_a_quarter_around_the_world_six_hours_later():
    kernel, grid = AirChemistry(time_across=DAY, start_time=0.0), make_grid((24,))

    # The second cell centre is 1.5 / 24 around: its time is an hour and a half ahead.
    np.testing.assert_allclose(np.roll(kernel.sun(grid, 0.0), -6), kernel.sun(grid, 360.0), atol=1e-15)


def test_the_step_shows_the_operator_the_sun_of_its_middle():
    kernel, grid = AirChemistry(start_time=600.0), make_grid((4,), length=(40.0,))
    state = started(kernel, grid)
    state.time = 100.0

    kernel.step(state, grid, 20.0, evaluate_truth)

    np.testing.assert_array_equal(state["sun"].interior, kernel.sun(grid, 110.0))


def test_ozone_is_made_by_day_and_used_by_night():
    kernel, grid = AirChemistry(start_time=300.0), make_grid((6, 6), (True, False), (60.0, 60.0))

    afternoon, night = (run(kernel, grid, 10.0, steps)["O3"].interior.mean() for steps in (72, 132))

    assert afternoon > 2.0 * BACKGROUND["O3"]
    assert night < 0.98 * afternoon


@pytest.mark.parametrize(
    ("emissions", "steps", "quantity"),
    [({}, (8, 16, 32), "order of the splitting"), (None, (16, 32, 64), "order of the splitting, with emissions")],
)
def test_splitting_converges_with_order_two(emissions, steps, quantity, agrees):
    kernel = AirChemistry(sunshine=1.0, rtol=1e-9, atol=1e-18, wind=1.0, diffusivity=5.0, emissions=emissions)
    grid = make_grid((16,), length=(160.0,))
    settled = run(kernel, grid, 10.0, 6)  # the radicals, which start from nothing, have come up

    def solution(steps):
        state = grid.state(kernel.fields)
        state.copy_from(settled)
        for _ in range(steps):
            kernel.step(state, grid, 20.0 / steps, evaluate_truth)
        return np.stack([state[name].interior for name in ("NO2", "NO", "O3")])

    coarse, middle, fine = map(solution, steps)

    agrees("air chemistry", quantity, np.log2(np.abs(coarse - middle).mean() / np.abs(middle - fine).mean()))


def carried(wind, shape, periodic, values, dt, steps):
    """Carry one field; give it before and after."""
    kernel, grid = AirChemistry(), make_grid(shape, periodic, tuple(map(float, shape)))
    state = grid.state(kernel.fields[:1])
    state["NO2"].interior[...] = values(*np.meshgrid(*map(grid.centres, range(grid.ndim)), indexing="ij"))
    before = state["NO2"].interior.copy()
    for _ in range(steps):
        carry(state, grid, wind, ("NO2",), dt)
    return before, state["NO2"].interior


EDDIES = Wind(0.6, 0.9, (2, 1), 0.1)


@pytest.mark.parametrize("periodic", [(True, True), (True, False)])
def test_a_uniform_field_stays_uniform(periodic):
    _, after = carried(EDDIES, (24, 12), periodic, lambda x, y: np.full(x.shape, 3.0), 5.0, 20)

    np.testing.assert_allclose(after, 3.0, rtol=1e-13)


def test_the_mass_carried_is_conserved(agrees):
    before, after = carried(
        EDDIES, (24, 12), (True, False), lambda x, y: np.exp(-((x - 9) ** 2) - (y - 5) ** 2), 10.0, 1440
    )

    agrees("air chemistry", "drift of the mass carried, 10 days", math.fsum(after.flat) / math.fsum(before.flat) - 1.0)


def test_a_sharp_cloud_gets_neither_negative_nor_denser():
    _, after = carried(
        Wind(0.6, 0.9, (2, 1), 0.0), (24, 12), (True, False), lambda x, y: ((x > 6) & (x < 12)) * 1.0, 2.0, 30
    )

    assert after.min() >= 0.0
    # Limited along each axis, not across both at once: an overshoot of some per cent is what Heun's method leaves.
    assert after.max() < 1.05


def test_a_wave_comes_around_with_an_error_of_second_order(agrees):
    def error(cells):
        wave = lambda x: 2.0 + np.sin(2.0 * np.pi * x / cells)  # noqa: E731
        before, after = carried(Wind(1.0, 0.0, (1, 1), 0.0), (cells,), True, wave, cells / 8.0, 8)
        return np.abs(after - before).mean()

    agrees("wind", "order in space, mean error", np.log2(error(64) / error(128)))


def test_mixing_is_of_second_order_in_space(agrees):
    def error(cells):
        wave = lambda x: 2.0 + np.cos(2.0 * np.pi * x / cells)  # noqa: E731
        diffusivity = 1e-3 * cells**2  # the same in the box's own units
        before, after = carried(Wind(0.0, 0.0, (1, 1), diffusivity), (cells,), True, wave, 1.0, 1)
        return np.abs(after - 2.0 - (before - 2.0) * np.exp(-1e-3 * 4.0 * np.pi**2)).max()

    agrees("wind", "order of the mixing in space", np.log2(error(16) / error(32)))


def test_a_mean_wind_against_an_edge_is_refused():
    grid = make_grid((8, 8), periodic=False)
    kernel = AirChemistry()

    with pytest.raises(PluginError, match=r"kernel.params.wind = 0"):
        kernel.step(started(kernel, grid), grid, 1.0, evaluate_truth)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rtol": 0.0},
        {"sunshine": 2.0},
        {"waves": (0, 1)},
        {"wind": float("nan")},
        {"emissions": {"NO": -1.0}},
        {"latitude": 91.0},
    ],
)
def test_parameters_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PluginError, match=next(iter(wrong))):
        AirChemistry(**wrong)


def test_a_mistyped_species_names_the_nearest():
    with pytest.raises(PluginError, match='Did you mean "HCHO"'):
        AirChemistry(emissions={"HCH0": 1.0})
