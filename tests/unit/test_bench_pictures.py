"""Tables and pictures of benchmarks: what they say of the rows, whatever the rows are like."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from benchmarks.harness import tables
from coupler.report.bench import draw_bench
from coupler.report.bench_table import table_of
from coupler.report.standings import Row, from_fast_to_slow, number_text, ratio_text, seconds_text, standings

pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).resolve().parents[2]
MICRO = 1e-6
EXCHANGE = {
    "identity/4KiB": {"coupler-inprocess": 2.0, "coupler-shared": 4.0, "ray-actor": 1000.0, "memory-copy": 0.5},
    "identity/1MiB": {"coupler-shared": 30.0, "ray-actor": 3000.0},
    "mlp/16384": {"coupler-shared": 2500.0, "torch-eager": 10000.0},
}


def _rows(cases: Mapping[str, Mapping[str, float]], **facts: str | float) -> list[Row]:
    return [
        {
            "case": case,
            "system": system,
            "n": 100,
            "median_s": median * MICRO,
            "p10_s": 0.9 * median * MICRO,
            "p90_s": 1.2 * median * MICRO,
            **facts,
        }
        for case, systems in cases.items()
        for system, median in systems.items()
    ]


def _steps(added: Mapping[str, float]) -> list[Row]:
    """Rows of a benchmark about added time, on 1 to 4 ranks, and one that has no time at all."""
    cases = {f"ranks/{ranks}": {name: 200.0 + each * ranks for name, each in added.items()} for ranks in (1, 2, 4)}
    rows = [{**row, "added_s": float(row["median_s"]) - 200.0 * MICRO} for row in _rows(cases)]
    return [*rows, {"case": "idle/server", "system": "coupler-shared", "n": 1, "core_share": 0.001}]


def _text(rows: list[Row]) -> str:
    console = Console(width=300, highlight=False)
    with console.capture() as said:
        console.print(table_of("exchange", rows))
    return said.get()


def test_ratios_refer_to_what_a_run_does_by_itself_in_the_same_case() -> None:
    found = {(standing.case, standing.system): standing for standing in standings(_rows(EXCHANGE))}

    assert found["identity/4KiB", "ray-actor"].ratio == pytest.approx(250.0)
    assert found["identity/4KiB", "coupler-inprocess"].ratio == pytest.approx(0.5)
    assert found["mlp/16384", "torch-eager"].ratio == pytest.approx(4.0)
    references = {case for case, system in found if found[case, system].reference}
    assert references == set(EXCHANGE)


def test_a_case_without_a_system_of_ours_has_no_ratios() -> None:
    rows = _rows({"h2/step": {"cantera": 3.0, "scipy-lsoda": 50.0}})

    assert all(math.isnan(standing.ratio) and not standing.reference for standing in standings(rows))


def test_a_benchmark_about_added_time_is_compared_by_that() -> None:
    found = standings(_steps({"compute": 0.0, "coupler-shared": 10.0, "ray-actor": 900.0}))

    at_four = {standing.system: standing for standing in found if standing.case == "ranks/4"}
    assert at_four["ray-actor"].seconds == pytest.approx(3600 * MICRO)
    assert at_four["ray-actor"].ratio == pytest.approx(90.0)
    assert math.isnan(at_four["compute"].ratio)


def test_added_time_that_only_some_timings_have_is_a_column_like_others() -> None:
    bare, coupled = _rows({"evaluate/1": {"bare": 1.0, "coupler": 8.0}})

    found = {standing.system: standing for standing in standings([bare, {**coupled, "added_s": 7.0 * MICRO}])}

    assert found["coupler"].seconds == pytest.approx(8.0 * MICRO)
    assert found["bare"].ratio == pytest.approx(1 / 8)


def test_systems_are_ordered_from_fast_to_slow_and_limits_come_first() -> None:
    order = list(from_fast_to_slow(standings(_rows(EXCHANGE))))

    assert order == ["memory-copy", "coupler-inprocess", "coupler-shared", "torch-eager", "ray-actor"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.05e-6, "3.05 µs"),
        (2.4e-8, "24.0 ns"),
        (0.0999996, "100 ms"),
        (999.96e-6, "1.00 ms"),
        (74.5, "74.5 s"),
        (-12.34e-6, "-12.3 µs"),
        (0.0, "0 s"),
    ],
)
def test_times_have_three_digits_and_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(71.25, "71.2"), (0.000107, "0.000107"), (1751.6, "1 750"), (4.2e9, "4.2e+09")]
)
def test_other_numbers_have_three_digits(number: float, text: str) -> None:
    assert number_text(number) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.974, "0.97×"), (1.046, "1.05×"), (2.64, "2.6×"), (9.97, "10×"), (1263.0, "1 260×"), (math.nan, "")],
)
def test_ratios_have_no_more_digits_than_they_are_worth(ratio: float, text: str) -> None:
    assert ratio_text(ratio) == text


def test_the_table_names_a_case_once_and_shows_all_columns() -> None:
    said = _text(_rows(EXCHANGE, bytes=4096, gflops=71.25))

    assert said.count("identity/4KiB") == 1
    assert "1.00 ms" in said
    assert "250×" in said
    assert "gflops" in said
    assert "71.2" in said


def test_the_table_of_rows_without_times_shows_what_they_have() -> None:
    said = _text([{"case": "stream/drift", "system": "certificate", "delta": 0.05, "crossed_share": 0.0312}])

    assert "crossed_share" in said
    assert "0.0312" in said
    assert "over ours" not in said


@pytest.mark.parametrize(
    "rows",
    [
        _rows(EXCHANGE),
        _rows({"bz/physics": {"bare": 1000.0, "coupler": 1006.0}}),
        _rows({"one-of-2": {"coupler-off": 90.0, "coupler-sharing": 50.0}, "one-of-4": {"coupler-sharing": 30.0}}),
        _rows({"bz/step": {"scipy-lsoda": 46.0}}),
        _rows({f"mlp/{size}": {"coupler": 1.0, "torch-eager": size} for size in (1.0, 3.0, 4.0, 500.0)}),
        _steps({"compute": 0.0, "coupler-shared": 10.0, "ray-actor": 900.0, "zeromq": -1.0}),
    ],
    ids=["several families", "nearly equal", "no family", "one dot", "one family", "growth"],
)
def test_whatever_the_rows_there_is_a_picture_of_the_page_width(tmp_path: Path, rows: list[Row]) -> None:
    picture = draw_bench("exchange", rows, tmp_path / "exchange.png")

    assert picture == tmp_path / "exchange.png"
    pixels = imread(picture)
    assert pixels.shape[1] == 1584
    assert pixels[..., :3].std() > 0.02


def test_rows_without_times_give_no_picture(tmp_path: Path) -> None:
    rows: list[Row] = [{"case": "stream/drift", "system": "certificate", "delta": 0.05}]

    assert draw_bench("certificate", rows, tmp_path / "certificate.png") is None
    assert not list(tmp_path.iterdir())


def test_a_page_is_filled_from_results_and_can_be_filled_again(tmp_path: Path) -> None:
    (tmp_path / "exchange.json").write_text(json.dumps(_rows(EXCHANGE, copies="none")))
    (tmp_path / "machine.json").write_text(json.dumps({"processor": "EPYC", "memory_gib": 23.5}))
    page = (
        "Text.\n<!-- table exchange cases=identity/* -->\nold\n<!-- end -->\n"
        "<!-- table exchange cases=mlp/*,none/* columns=copies,n -->\n<!-- end -->\n"
        "<!-- table halo -->\n<!-- end -->\n<!-- machine -->\n<!-- end -->\nMore text.\n"
    )

    filled = tables.fill(page, tmp_path)

    assert "| `coupler-shared` | **4.00 µs** | **30.0 µs** |" in filled
    assert "| `ray-actor` | 1.00 ms (250×) | 3.00 ms (100×) |" in filled
    assert "|  | `torch-eager` | 10.0 ms | 4.0× | none | 100 |" in filled
    assert "| memory gib | 23.5 |" in filled
    assert "*Not recorded yet.*" in filled
    assert "old" not in filled
    assert filled.startswith("Text.\n")
    assert filled.endswith("More text.\n")
    assert tables.fill(filled, tmp_path) == filled


def test_a_table_of_rows_without_times_has_no_column_for_them() -> None:
    rows: list[Row] = [{"case": "idle/server", "system": "coupler-shared", "n": 1, "core_share": 0.001}]

    assert tables.along(rows, ["core_share"]).splitlines()[0] == "| case | system | core share |"


def test_pictures_of_all_results_are_drawn(tmp_path: Path) -> None:
    for name in ("exchange", "halo"):
        (tmp_path / f"{name}.json").write_text(json.dumps(_rows(EXCHANGE)))
    (tmp_path / "machine.json").write_text("{}")

    tables.main([str(tmp_path), "--pictures", str(tmp_path)])

    assert {path.name for path in tmp_path.glob("*.png")} == {"bench-exchange.png", "bench-halo.png"}


def test_the_page_of_figures_shows_the_results_that_are_kept() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    (results,) = re.findall(r"^RESULTS=(.*)$", page, re.M)

    assert tables.fill(page, ROOT / results) == page, "python -m benchmarks.harness.tables writes its tables anew"
