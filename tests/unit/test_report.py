"""Reports: what they say of a run, what they draw, and which folders they refuse."""

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.errors import CouplerError
from coupler.field import Field
from coupler.fieldsfile import FieldsFile
from coupler.grid import Grid
from coupler.ledger import read_ledger
from coupler.records import Decision
from coupler.report import compare, draw, draw_comparison
from coupler.report.budget import shares
from coupler.report.recording import read_recording
from coupler.report.scale import scale_of
from coupler.report.twins import draw_twins
from coupler.summary import (
    Seconds,
    TwinDistance,
    TwinWindow,
    read_summary,
)
from tests.unit.written_run import ELEMENTS, FIELDS, FILES, STEPS, off_by, spiral, write_run

pytestmark = pytest.mark.filterwarnings("error")

DEMO = Path(__file__).resolve().parents[2] / "launch" / "demo.py"


def _pair(folder: Path, **settings: object) -> tuple[Path, Path]:
    """Write a certified run with these settings, and the physics run with none."""
    run = write_run(folder / "run", **settings)  # type: ignore[arg-type]
    return run, write_run(folder / "physics", mode="physics", seconds=Seconds(total=65.0, setup=5.0))


def _is_a_picture(path: Path) -> bool:
    """Whether it has more than one colour; a file cut short does not read at all."""
    return bool(np.ptp(imread(path)) > 0)


@pytest.mark.parametrize("shape", [(40,), (12, 16), (6, 12, 12)])
def test_a_run_is_drawn_in_every_dimension(tmp_path: Path, shape: tuple[int, ...]) -> None:
    run = write_run(tmp_path / "run", shape=shape)
    physics = write_run(tmp_path / "physics", shape=shape, mode="physics")

    pictures = [*draw(run), draw_comparison(run, physics)]

    assert [picture.name for picture in pictures] == ["fields.png", "budget.png", "comparison.png"]
    assert all(map(_is_a_picture, pictures))
    # No temporary file is left beside them.
    assert {path.name for path in run.iterdir()} == {
        *FILES,
        "fields",
        "fields.xdmf",
        "ledger",
        *(picture.name for picture in pictures),
    }


def test_a_physics_run_has_no_budget_to_draw(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", mode="physics")

    assert draw(run) == [run / "fields.png"]
    assert not (run / "budget.png").exists()


def test_a_second_drawing_replaces_the_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "fields.png").write_bytes(b"old")

    draw(run)

    assert _is_a_picture(run / "fields.png")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_that_ended_before_there_was_a_model_is_drawn(tmp_path: Path, steps: int) -> None:
    run = write_run(tmp_path / "run", steps=steps, every=1)

    assert run / "fields.png" in draw(run)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e300, math.nan, math.inf])
@pytest.mark.parametrize("shape", [(16,), (8, 8)])
def test_a_field_without_any_contrast_is_drawn(tmp_path: Path, value: float, shape: tuple[int, ...]) -> None:
    run = write_run(tmp_path / "run", shape=shape, fill=lambda _, __, places: np.full_like(places[0], value))

    assert _is_a_picture(draw(run)[0])


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)

    draw(write_run(tmp_path / "run"))

    assert dict(mpl.rcParams) == before


def test_drawing_does_without_pyplot(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    code = "import sys; from pathlib import Path; from coupler.report import draw; draw(Path(sys.argv[1])); "

    finished = subprocess.run(
        [sys.executable, "-c", code + "print('matplotlib.pyplot' in sys.modules)", str(run)],
        capture_output=True,
        text=True,
        check=True,
        cwd=DEMO.parents[2],
    )

    assert finished.stdout.split() == ["False"]


def test_fields_come_in_the_order_of_the_kernel(tmp_path: Path) -> None:
    recording = read_recording(write_run(tmp_path / "run") / "fields.h5")

    assert dict(recording.units) == {"v": "K", "u": "1"}
    assert list(recording.units) == ["v", "u"]


def test_a_moment_that_was_not_written_in_full_does_not_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with h5py.File(run / "fields.h5") as file:
        arrays, units = {name: data[:] for name, data in file.items()}, dict(file["v"].attrs)["units"]
    (run / "fields.h5").unlink()
    with h5py.File(run / "fields.h5", "w") as file:  # in one piece, as runs wrote them once
        for name, array in (arrays | {"v": np.concatenate([arrays["v"], arrays["v"][:1]])}).items():
            file[name] = array
        file["v"].attrs["units"] = file["u"].attrs["units"] = units

    assert read_recording(run / "fields.h5").steps == (0, 2, 4, 6, 8)


def test_shares_add_up_all_ranks(tmp_path: Path) -> None:
    rows = read_ledger(write_run(tmp_path / "run") / "ledger.h5")

    decisions = shares(rows, 100)

    assert decisions.edges.tolist() == list(range(1, STEPS + 2))
    assert decisions.total.tolist() == [2 * ELEMENTS] * STEPS
    assert decisions.counts[Decision.DISABLED].tolist() == [200, 200, 0, 0, 0, 0, 0, 0]
    assert decisions.counts[Decision.ACCEPTED].tolist() == [0, 0, 100, 100, 100, 100, 100, 100]
    assert decisions.share(Decision.AUDITED) == 60 / 1600


def test_shares_of_a_long_run_add_up_neighbouring_steps(tmp_path: Path) -> None:
    rows = read_ledger(write_run(tmp_path / "run") / "ledger.h5")

    decisions = shares(rows, 3)

    assert decisions.edges.tolist() == [1, 4, 7, 9]
    assert decisions.total.tolist() == [600, 600, 400]


@pytest.mark.parametrize(
    ("values", "logarithmic", "ends"),
    [
        ([1.0, 1000.0], True, (1.0, 1000.0)),
        ([1.0, 100.0], False, (0.0, 100.0)),
        ([50.0, 100.0], False, (50.0, 100.0)),
        ([0.0, 1e6], False, (0.0, 1e6)),
        ([-1.0, 1e6], False, (-1.0, 1e6)),
        ([5.0, 5.0], False, (4.5, 5.5)),
        ([math.nan, math.inf], False, (0.0, 1.0)),
    ],
)
def test_a_scale_is_logarithmic_where_a_positive_field_spans_decades(
    values: list[float], logarithmic: bool, ends: tuple[float, float]
) -> None:
    scale = scale_of([np.array(values)])

    assert scale.logarithmic == logarithmic
    assert (scale.low, scale.high) == ends
    assert scale.label("T", "K") == "T [K]" + " (log scale)" * logarithmic


def test_a_difference_is_relative_to_the_range_of_the_reference(tmp_path: Path) -> None:
    run, physics = _pair(tmp_path, fill=off_by(0.5))

    comparison = compare(run, physics)

    assert comparison.steps == (0, 2, 4, 6, 8)
    assert comparison.times == (0.0, 0.5, 1.0, 1.5, 2.0)
    recording = read_recording(physics / "fields.h5")
    ranges = [np.ptp(recording.frame("u", moment)) for moment in range(5)]
    # The field is off by the same number everywhere, which is then the root mean square but for rounding.
    expected = [0.5 * time / width for time, width in zip(comparison.times, ranges, strict=True)]
    assert comparison.differences["u"] == pytest.approx(expected, rel=1e-12)
    assert comparison.differences["v"] == (0.0,) * 5
    assert (comparison.worst_field, comparison.worst_difference) == ("u", comparison.differences["u"][-1])


def test_speed_is_a_ratio_of_seconds_with_and_without_setup(tmp_path: Path) -> None:
    comparison = compare(*_pair(tmp_path, seconds=Seconds(total=30.0, setup=10.0)))

    assert comparison.loop_speedup == (65.0 - 5.0) / (30.0 - 10.0)
    assert comparison.total_speedup == 65.0 / 30.0


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_a_run_that_is_beyond_all_numbers_is_infinitely_far_off(tmp_path: Path, value: float) -> None:
    def explode(name: str, time: float, places: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.where((places[0] < 0.3) & (time > 1.0), value, spiral(name, time, places))

    run, physics = _pair(tmp_path, fill=explode)

    comparison = compare(run, physics)

    assert comparison.differences["u"] == (0.0, 0.0, 0.0, math.inf, math.inf)
    assert comparison.worst_difference == math.inf
    assert _is_a_picture(draw_comparison(run, physics))


def test_runs_that_wrote_at_other_steps_are_compared_where_both_did(tmp_path: Path) -> None:
    assert compare(*_pair(tmp_path, every=4)).steps == (0, 4, 8)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shape": (12, 12)}, "their grids are 12 x 12 and 12 x 16 cells"),
        ({"shape": (192,)}, "their grids are 192 and 12 x 16 cells"),
        ({"length": (2.0, 1.0)}, "their grids are 2 x 1 and 1 x 1 long"),
        ({"fields": (Field("v"), Field("u"))}, "their fields are v, u and v, u, or in other units"),
        ({"steps": 6}, "they made 6 and 8 steps"),
        ({"dt": 0.5}, "at step 2 one was at t = 1 and the other at t = 0.5"),
        ({"fill": lambda _, time, places: places[0] + time}, 'their field "v" is not the same at the start'),
    ],
)
def test_runs_of_different_cases_are_not_compared(tmp_path: Path, settings: dict[str, object], sentence: str) -> None:
    run, physics = _pair(tmp_path, **settings)

    with pytest.raises(CouplerError, match=sentence + ".*controller.mode=physics"):
        compare(run, physics)


def test_only_a_physics_run_is_a_reference(tmp_path: Path) -> None:
    run, physics = _pair(tmp_path)

    with pytest.raises(CouplerError, match="the second ran in mode certified"):
        compare(physics, run)


def test_an_unknown_field_is_named_with_its_nearest(tmp_path: Path) -> None:
    run, physics = _pair(tmp_path)

    assert draw_comparison(run, physics, field="u").is_file()
    with pytest.raises(CouplerError, match=r'has no field "uu"\. Did you mean "u"'):
        draw_comparison(run, physics, field="uu")


def _with_twins(folder: Path, *growths: dict[str, list[float]]) -> Path:
    """Put twin windows into a finished run, one every ten steps."""
    windows = [
        TwinWindow(
            step=10 * number + 1,
            steps=len(next(iter(growth.values()))),
            fields={
                name: TwinDistance(rms_over_range=values[-1], largest=1.0, growth=values)
                for name, values in growth.items()
            },
        )
        for number, growth in enumerate(growths, start=1)
    ]
    summary = read_summary(folder / "summary.json")
    summary.model_copy(update={"twins": windows}).write(folder / "summary.json")
    return folder


@pytest.mark.parametrize(
    "growths",
    [
        [{"v": [1e-3]}],
        [{"v": [0.0, 1e-5], "u": [0.0, 0.0]}, {"v": [2e-3, 4e-2], "u": [1e-5, math.nan]}],
        [{"v": [1e-3, 2e-3]}, {"v": [3e-3]}],
        [{f"f{number}": [1e-3 * (number + 1)] for number in range(9)}] * 200,
        [{"v": [math.inf, math.nan], "u": [1e-300, 1e300]}],
    ],
    ids=["one distance", "gaps", "cut", "many", "beyond all numbers"],
)
def test_twin_windows_are_drawn(tmp_path: Path, growths: list[dict[str, list[float]]]) -> None:
    run = _with_twins(write_run(tmp_path / "run"), *growths)

    assert run / "twins.png" in draw(run)
    assert _is_a_picture(run / "twins.png")


@pytest.mark.parametrize("growths", [[], [{"v": [0.0, 0.0]}], [{"v": [math.nan]}]], ids=["none", "still", "no number"])
def test_where_nothing_moved_there_is_no_picture_of_it(tmp_path: Path, growths: list[dict[str, list[float]]]) -> None:
    assert draw_twins(_with_twins(write_run(tmp_path / "run"), *growths)) is None


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run")
    (run / name).unlink()

    with pytest.raises(CouplerError, match=rf"run/{name} is missing.*give the folder") as raised:
        draw(run)

    assert "\n" not in str(raised.value)


# Metrics of which nothing is left are whole: those of a run before its first step.
@pytest.mark.parametrize(("name", "kept"), [*((name, 0.9) for name in FILES), *((name, 0.0) for name in FILES[:3])])
def test_a_file_that_was_cut_short_is_named(tmp_path: Path, name: str, kept: float) -> None:
    run = write_run(tmp_path / "run")
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: int(kept * len(whole))])

    with pytest.raises(CouplerError, match=rf"run/{name} cannot be read.*run the case again") as raised:
        draw(run)

    assert "\n" not in str(raised.value)


def test_fields_without_any_moment_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with Grid((8,), halo=1, comm=MPI.COMM_SELF) as grid:
        FieldsFile(run / "fields.h5", grid, FIELDS)

    with pytest.raises(CouplerError, match=r"fields\.h5 holds no field at any moment"):
        read_recording(run / "fields.h5")


def test_the_demo_says_what_lies_in_the_folders(tmp_path: Path) -> None:
    run, physics = _pair(tmp_path, fill=off_by(0.5))

    finished = _demo(physics, run)

    assert finished.returncode == 0, finished.stderr
    said = " ".join(finished.stdout.split())
    # 6 of 8 steps were answered, all four of the second half; half of their elements were accepted.
    assert "accepted 37.5% 50.0%" in said
    assert "audited 3.8% 5.0%" in said
    assert "At most 0.0125 per decision." in said
    assert "3.00× physics in the loop, 2.17× with set-up and training" in said
    assert f"{compare(run, physics).worst_difference:.2%} of the range of u" in said
    for name in ("comparison.png", "fields.png", "budget.png"):
        assert str(run / name) in finished.stdout
        assert _is_a_picture(run / name)


def test_the_demo_refuses_the_wrong_folders_in_one_sentence(tmp_path: Path) -> None:
    finished = _demo(tmp_path, tmp_path)

    assert finished.returncode == 2
    assert finished.stderr.startswith("demo: ")
    assert finished.stderr.count("\n") == 1
    assert "summary.json is missing" in finished.stderr


def _demo(physics: Path, run: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), str(physics), str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
