"""The report's page: every section is there, whatever a run left, and what a user wrote stays text."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from typer.testing import CliRunner

from coupler.cli import app
from coupler.config import read_case
from coupler.errors import CouplerError
from coupler.field import Field
from coupler.ledger import AUDIT, RECORD, LedgerFile, read_ledger
from coupler.records import Decision, EventKind, Reason
from coupler.report.page import write_page
from coupler.report.page.course import accepted_by_rank
from coupler.report.page.dossier import read_dossier
from coupler.report.page.film import film_of
from coupler.report.recording import read_recording
from coupler.summary import EventSummary, TwinDistance, TwinWindow, read_summary
from tests.unit.written_run import ELEMENTS, write_run

pytestmark = pytest.mark.filterwarnings("error")

SECTIONS = (
    "fields",
    "budget",
    "places",
    "ranks",
    "seconds",
    "economics",
    "models",
    "training",
    "twins",
    "events",
    "environment",
    "case",
)
# A page that is parsed where there is no closing tag for these is well-formed all the same.
_VOID = {"meta", "img", "input", "link", "br", "hr"}
EVIL = "<script>alert(1)</script>"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


class Page(HTMLParser):
    """A page taken apart: ids, tags, text by section; fails where tags do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if given.get("id") else []  # type: ignore[list-item]
        self.links += [value for name in ("src", "href", "xlink:href") if (value := given.get(name))]
        if tag not in _VOID:
            self._open.append((tag, given.get("id") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        section = next((name for tag, name in reversed(self._open) if tag == "section"), "")
        self.text[section] = self.text.get(section, "") + data


def _with_case(folder: Path, *settings: str, comment: str = "") -> Path:
    case = read_case(None, ["grid.shape=[12,16]", "kernel.name=coupler.kernels.bz:BZ", *settings])
    (folder / "case.toml").write_text(case.to_toml() + comment, encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({"host": "node1", "command": ["coupler", "run"]}))
    return folder


def _edit_summary(folder: Path, **changes: object) -> None:
    read_summary(folder / "summary.json").model_copy(update=changes).write(folder / "summary.json")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of a run that has all there is; several tests look at it."""
    folder = _with_case(
        write_run(tmp_path_factory.mktemp("page") / "run", shape=(10, 20)),
        "grid.shape=[10,20]",
        "controller.twin_every=20",
    )
    distance = TwinDistance(rms_over_range=0.01, largest=0.1, growth=[0.001, 0.01])
    _edit_summary(folder, twins=[TwinWindow(step=21, steps=2, fields={"u": distance})])
    return write_page([folder])


def test_a_page_has_every_section_and_the_certificate_first(written: Path) -> None:
    page = Page(written)

    assert set(SECTIONS) <= set(page.ids)
    assert page.ids.index("certificate") < min(page.ids.index(section) for section in SECTIONS)
    assert "At most 0.0125 per decision." in page.text["certificate"]
    assert len(page.ids) == len(set(page.ids))


def test_a_page_asks_nothing_of_a_network_and_its_pictures_lie_beside_it(written: Path) -> None:
    page = Page(written)

    files = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert len(files) == 5  # budget, places, ranks, seconds, twins
    assert all(np.ptp(imread(written.parent / link)) > 0 for link in files)
    assert not re.search(r"url\((?!#)|@import", written.read_text(encoding="utf-8"))
    assert not list(written.parent.rglob("*.part"))


@pytest.mark.parametrize("shape", [(40,), (12, 16), (6, 12, 12)])
def test_a_film_has_a_layer_per_moment_in_every_dimension(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folder = write_run(tmp_path / "run", shape=shape)

    film = film_of(read_recording(folder / "fields.h5"))

    assert [moment.partition(",")[0] for moment in film.moments] == [f"step {step}" for step in (0, 2, 4, 6, 8)]
    assert [strip.field for strip in film.strips] == ["v [K]", "u"]
    kind = "<svg" if len(shape) == 1 else '<img alt="" width='
    assert all(
        len(strip.layers) == 5 and str(layer).startswith(kind) for strip in film.strips for layer in strip.layers
    )
    assert ("slice" in film.note) == (len(shape) == 3)


def test_a_film_of_a_long_run_on_a_large_grid_stays_small(tmp_path: Path) -> None:
    def noise(name: str, time: float, places: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.random.default_rng(0).random(places[0].shape)

    folder = write_run(tmp_path / "run", shape=(700, 350), steps=60, every=1, fill=noise, fields=(Field("u"),))

    film = film_of(read_recording(folder / "fields.h5"))

    assert len(film.moments) == 48 and "48 of 61 moments" in film.note
    assert film.moments[0].startswith("step 0,") and film.moments[-1].startswith("step 60,")
    # Noise is what compresses worst.
    assert sum(len(layer) for strip in film.strips for layer in strip.layers) < 10e6


def test_where_a_line_is_not_finite_it_is_broken(tmp_path: Path) -> None:
    def broken(name: str, time: float, places: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.where(np.arange(len(places[0])) == 20, np.nan, places[0])

    film = film_of(read_recording(write_run(tmp_path / "run", shape=(40,), fill=broken) / "fields.h5"))

    assert str(film.strips[0].layers[0]).count("M") == 2
    assert "nan" not in str(film.strips[0].layers[0])


def test_what_a_user_wrote_stays_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a run & <b>", fields=(Field("v", unit=EVIL), Field("u", unit="<i>$x$")))
    _with_case(folder, f'kernel.name="my:{EVIL}"', comment=f"# {EVIL}\n")
    (folder / "environment.json").write_text(json.dumps({"host": EVIL, "packages": {EVIL: EVIL}}))
    event = EventSummary(operator=EVIL, step=3, kind=EventKind.PROMOTED.value, version=1, sentence=EVIL)
    _edit_summary(folder, events=[event])

    path = write_page([folder])

    page = Page(path)
    assert page.tags.count("script") == 1
    assert not {"b", "i"} & set(page.tags)
    for section in ("fields", "events", "environment", "case"):
        assert EVIL in page.text[section]


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run"))
    (folder / "summary.json").unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "elem')  # the line that is being written

    page = Page(write_page([folder]))

    assert set(SECTIONS) <= set(page.ids)
    assert "Up to step 8, with probability at least 0.95" in page.text["certificate"]
    assert "going on or cut short, step 8 of 100" in page.text["certificate"]


def test_a_run_of_no_steps_has_a_page(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run", steps=0))

    page = Page(write_page([folder]))

    assert set(SECTIONS) <= set(page.ids)


def test_a_run_that_was_killed_before_its_ledger_was_written_has_a_budget(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run"))
    for path in (folder / "summary.json", folder / "ledger.h5"):
        path.unlink()

    run = read_dossier(folder, "run")
    page = Page(write_page([folder]))

    assert [(model.version, model.step) for model in run.models] == [(1, 3)]
    assert run.share(Decision.ACCEPTED) == 6 * 100 / (8 * 200)
    assert "the certified bound on the mean loss" in page.text["budget"]
    assert "Nothing is written down yet" in page.text["events"]


def test_a_run_that_was_killed_before_its_first_output_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = _with_case(tmp_path / "run")

    page = Page(write_page([folder]))

    assert "Nothing can be said yet" in page.text["certificate"]
    assert "No fields: not there." in page.text["fields"]


@pytest.mark.parametrize("name", ["summary.json", "fields.h5", "ledger.h5", "metrics.jsonl", "case.toml"])
def test_a_file_that_was_cut_short_is_a_gap_with_its_reason(tmp_path: Path, name: str) -> None:
    folder = _with_case(write_run(tmp_path / "run"))
    data = (folder / name).read_bytes()
    # Half a line of metrics is one that is being written, and half a case may be a case.
    ending = {"metrics.jsonl": b"\n", "case.toml": b"\n[run"}
    (folder / name).write_bytes(data[: len(data) // 2] + ending.get(name, b""))

    run = read_dossier(folder, "run")

    assert list(run.gaps) == [name]
    assert "cannot be read" in run.gaps[name]


def test_a_page_says_what_could_not_be_read_and_shows_the_rest(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run"))
    for name in ("ledger.h5", "fields.h5"):
        (folder / name).write_bytes(b"cut")

    page = Page(write_page([folder]))

    assert "ledger.h5: " in page.text["environment"]
    assert "fields.h5 cannot be read" in page.text["fields"]
    assert "At most 0.0125 per decision." in page.text["certificate"]


def test_a_physics_run_says_that_there_is_nothing_to_certify(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run", mode="physics"), "controller.mode=physics")

    page = Page(write_page([folder]))

    assert "there is no surrogate" in page.text["certificate"]
    assert "there is no budget" in page.text["budget"]


def test_several_runs_stand_beside_each_other_with_their_difference(tmp_path: Path) -> None:
    run = _with_case(write_run(tmp_path / "one" / "run"))
    physics = _with_case(write_run(tmp_path / "two" / "run", mode="physics"), "controller.mode=physics")
    out = tmp_path / "both" / "page.html"

    page = Page(write_page([run, physics], out))

    assert "one-run" in page.text["beside"] and "two-run" in page.text["beside"]
    assert "0.00% of the range of" in page.text["beside"]
    assert (tmp_path / "both" / "page" / "one-run-budget.png").is_file()


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    run = _with_case(write_run(tmp_path / "run", shape=(8, 8)))
    physics = _with_case(write_run(tmp_path / "physics", mode="physics"), "controller.mode=physics")

    page = Page(write_page([run, physics], tmp_path / "page.html"))

    assert "their grids are 8 x 8 and 12 x 16 cells" in page.text["beside"]


def test_audits_one_by_one_become_a_map(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run", shape=(10, 20)), "grid.shape=[10,20]")
    rows = read_ledger(folder / "ledger.h5")
    shutil.rmtree(folder / "ledger")
    (folder / "ledger.h5").unlink()
    audits = np.zeros(200, AUDIT)
    audits["id"], audits["verdict"] = np.arange(200), Reason.SCORE
    LedgerFile(folder / "ledger.h5", ["reaction"]).append(rows, {"audits": audits})

    page = Page(write_page([folder]))

    assert int(rows[rows["step"] == 1]["reasons"].sum()) == 2 * ELEMENTS == 10 * 20
    assert "the audited answers that the gate refused" in page.text["places"]


def test_without_audits_one_by_one_the_map_is_as_fine_as_the_ranks(written: Path) -> None:
    assert 'output.ledger = "audits"' in Page(written).text["places"]


def test_the_accepted_share_of_a_rank_is_its_own() -> None:
    rows = np.zeros(3, RECORD)
    rows["step"], rows["rank"] = [1, 1, 2], [0, 1, 1]
    rows["reasons"][:, Reason.ACCEPTED] = [1, 3, 4]
    rows["reasons"][:, Reason.SCORE] = [3, 1, 0]

    edges, share = accepted_by_rank(rows, columns=10)

    assert edges.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(share, [[0.25, np.nan], [0.75, 1.0]])


def test_twin_windows_are_drawn_into_the_page(written: Path) -> None:
    assert "the state moved away from physics by at most 1 % of the range of u" in Page(written).text["twins"]
    assert (written.parent / "report" / "run-twins.png").is_file()


def test_a_field_of_nan_has_a_page(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run", fill=lambda name, time, places: np.full_like(places[0], np.nan)))

    assert set(SECTIONS) <= set(Page(write_page([folder])).ids)


def test_folders_that_hold_no_run_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CouplerError, match="holds nothing that a run writes"):
        write_page([tmp_path])
    with pytest.raises(CouplerError, match="is no folder"):
        write_page([tmp_path / "nowhere"])


def test_a_page_that_is_no_html_file_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = _with_case(tmp_path / "run")
    (tmp_path / "file").write_text("")

    with pytest.raises(CouplerError, match=r"end it in \.html"):
        write_page([folder], tmp_path / "page.pdf")
    with pytest.raises(CouplerError, match=r"cannot be written .*--out FILE\.html"):
        write_page([folder], tmp_path / "file" / "page.html")


def test_fields_without_a_moment_are_a_gap(tmp_path: Path) -> None:
    folder = _with_case(write_run(tmp_path / "run"))
    with h5py.File(folder / "fields.h5", "r+") as file:
        del file["time"]
        file["time"] = np.empty(0)

    run = read_dossier(folder, "run")

    assert run.recording is None and run.summary is not None
    assert "no field at any moment" in run.gaps["fields.h5"]


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH to show the page")
def test_a_real_browser_shows_the_page_without_an_error(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    # The slider is moved by a script of the test's own at the end of the page.
    moved = (
        "<script>const s = document.querySelector('.film input'); s.value = 1; s.dispatchEvent(new Event('input'));"
        "document.title = 'on ' + document.querySelectorAll('.layer.on').length + ' ' +"
        "document.querySelector('output').textContent;</script></body>"
    )
    path.write_text(written.read_text(encoding="utf-8").replace("</body>", moved), encoding="utf-8")
    assert BROWSER is not None

    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "<title>on 2 step 2, t = 0.5</title>" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_the_command_says_where_the_page_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = _with_case(tmp_path / "run")

    done = CliRunner().invoke(app, ["report", str(folder)])

    assert done.exit_code == 0
    assert done.stdout.strip() == str(folder / "report.html")
