"""The documentation: the site builds without a warning, what pages name exists, and changes are gathered."""

import datetime as dt
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs._site.docstrings import with_notes
from docs._site.fragments import read_fragments, release, section
from docs._site.pages import rewritten

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NEEDED = ("sphinx", "myst_parser", "furo")
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "changes"]


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason='needs the packages of the site: pip install -c constraints.txt -e ".[docs]"',
)
@pytest.mark.timeout(600)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]

    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    assert finished.returncode == 0, finished.stderr
    tutorial = (tmp_path / "tutorial.html").read_text()
    assert "Hodgkin" in tutorial
    assert "Collective" in (tmp_path / "reference" / "running.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    rewritten(page.read_text(), page.parent, page.parent)  # raises where a file is missing


@pytest.mark.parametrize("name", ["README.md", "VISION.md", "CONTRIBUTING.md"])
def test_links_of_the_pages_at_the_top_lead_somewhere(name: str) -> None:
    rewritten((ROOT / name).read_text(), ROOT, ROOT)


def test_every_feature_of_the_twelve_names_files_that_exist() -> None:
    text = (DOCS / "twelve.md").read_text()
    named = re.findall(r"`((?:coupler|tests|launch|benchmarks|kernels|models|docs)/[\w./-]+)(?:::(\w+))?`", text)

    assert len(named) >= 24
    missing = [path for path, _ in named if not (ROOT / path).exists()]
    assert not missing
    absent = [f"{path}::{test}" for path, test in named if test and f"def {test}(" not in (ROOT / path).read_text()]
    assert not absent


def test_the_twelve_are_twelve_and_each_has_a_test() -> None:
    sections = re.split(r"^## ", (DOCS / "twelve.md").read_text(), flags=re.M)[1:]
    numbered = [one for one in sections if re.match(r"\d+\. ", one)]

    assert [int(one.split(".")[0]) for one in numbered] == list(range(1, 13))
    assert all("`tests/" in one for one in numbered)


def test_a_picture_and_a_link_are_shown_from_another_folder() -> None:
    text = "![x](docs/images/budget.png) [the certificate](docs/certificate.md#the-proof) [what this is not](VISION.md)"

    found = rewritten(text, ROOT, DOCS / "project")

    assert (
        found
        == "![x](../images/budget.png) [the certificate](../certificate.md#the-proof) [what this is not](vision.md)"
    )


def test_a_link_to_a_source_file_stays_as_words() -> None:
    assert rewritten("see [the layers](.importlinter)", ROOT, DOCS) == "see the layers"


def test_nothing_within_code_is_taken_for_a_link() -> None:
    text = "`state[name](x)`\n\n```python\nrows[0](missing.md)\n```\n"

    assert rewritten(text, ROOT, DOCS) == text


def test_a_link_to_nowhere_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a link leads to missing\.md"):
        rewritten("[x](missing.md)", ROOT, ROOT)


def test_prose_after_a_section_of_a_docstring_becomes_a_note() -> None:
    lines = ["Do it.", "", "Raises", "------", "ValueError", "    If not.", "", "Collective: yes."]

    assert with_notes(lines) == [*lines[:7], "Notes", "-----", "Collective: yes."]


def test_entries_of_a_section_are_no_prose() -> None:
    lines = ["Do it.", "", "Parameters", "----------", "a : int", "    One.", "", "b : int", "    Other.", ""]

    assert with_notes(lines) == lines


def test_every_fragment_of_a_change_can_be_read() -> None:
    assert sum(map(len, read_fragments().values())) > 0


def test_a_release_moves_fragments_into_the_changelog(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "changes"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Changes\n")
    (folder / "one.added.md").write_text("Something\nnew.\n")
    day = dt.date(2026, 11, 25)

    release("0.1.0", day, tmp_path)
    (folder / "two.fixed.md").write_text("Something mended.\n")
    release("0.2.0", day, tmp_path)

    assert (tmp_path / "CHANGELOG.md").read_text() == (
        "# Changelog\n\n## 0.2.0 (2026-11-25)\n\n### Fixed\n\n- Something mended.\n"
        "\n## 0.1.0 (2026-11-25)\n\n### Added\n\n- Something new.\n"
    )
    assert [path.name for path in folder.iterdir()] == ["README.md"]


@pytest.mark.parametrize(("name", "text"), [("one.new.md", "x"), ("one.md", "x"), ("one.added.md", " \n")])
def test_a_fragment_that_is_none_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(ValueError, match=name):
        read_fragments(tmp_path)


def test_nothing_to_release_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "docs" / "changes").mkdir(parents=True)

    with pytest.raises(ValueError, match=r"nothing to release as 0\.1\.0"):
        release("0.1.0", dt.date(2026, 11, 25), tmp_path)


def test_kinds_without_a_change_are_left_out() -> None:
    assert section("Unreleased", {"added": [], "fixed": ["This."]}) == "## Unreleased\n\n### Fixed\n\n- This.\n"


def test_make_docs_builds_with_warnings_as_errors() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")

    finished = subprocess.run(
        [make, "-n", "docs"], capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=True
    )

    assert re.search(r"sphinx.* -W ", finished.stdout)
