"""Cases: what is left out has a default, what is mistyped is named with its place and its nearest neighbour."""

import tomllib
from datetime import date, time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from coupler.case import Case, OperatorSection
from coupler.config import case_from, explain, override_value, read_case
from coupler.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def _read(folder: Path, text: str, *overrides: str) -> Case:
    path = folder / "case.toml"
    path.write_text(text, encoding="utf-8")
    return read_case(path, overrides)


def _complaint(folder: Path, text: str, *overrides: str) -> str:
    """Give what is said of a wrong case, without the folder it is in."""
    with pytest.raises(ConfigError) as caught:
        _read(folder, text, *overrides)
    return str(caught.value).replace(f"{folder}/", "")


def _keys() -> dict[str, Any]:
    """Every key a case may have, with its default."""
    keys: dict[str, Any] = {}
    for section, entry in Case.model_fields.items():
        model = OperatorSection if section == "operator" else entry.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        prefix = "operator.NAME" if section == "operator" else section
        keys |= {f"{prefix}.{name}": item.default for name, item in model.model_fields.items()}
    return keys


def test_an_empty_file_no_file_and_no_keys_are_the_same_case(folder: Path) -> None:
    assert _read(folder, "") == read_case(None) == Case()
    assert case_from({}, folder=folder) == Case()


def test_the_defaults_are_a_certified_run_that_learns_meanwhile() -> None:
    case = Case()

    assert (case.controller.mode, case.controller.policy, case.learning.mode) == ("certified", "budget", "asynchronous")
    assert (case.exchange.transport, case.surrogate.device) == ("auto", "auto")
    assert (case.kernel.name, case.grid.shape, case.controller.threshold, case.ray.address) == (None,) * 4
    assert case.learning.first <= case.learning.buffer


@pytest.mark.parametrize("key", _keys())
def test_every_key_is_explained_with_its_default_its_unit_and_its_meaning(key: str) -> None:
    (row,) = explain(key)

    default = _keys()[key]
    shown: dict[str, Any] = {"(unset)": None, "{}": {}}
    assert (shown[row.default] if row.default in shown else override_value(row.default)) == default
    assert row.unit
    assert len(row.meaning.split()) > 2


def test_everything_and_a_section_are_explained_key_by_key() -> None:
    assert [row.key for row in explain()] == list(_keys())
    assert [row.key for row in explain("operator.NAME")] == ["operator.NAME.atol", "operator.NAME.rtol"]
    assert {row.key.partition(".")[0] for row in explain("run")} == {"run"}


@pytest.mark.parametrize(
    ("kind", "key", "nearest"),
    [
        ("key", "run.stepz", "run.steps"),
        ("key", "controls.mode", "controller.mode"),
        ("section", "controls", "controller"),
    ],
)
def test_explaining_what_does_not_exist_names_the_nearest(kind: str, key: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf'No case has a {kind} "{key}"\. Did you mean "{nearest}"\?'):
        explain(key)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[runs]\nsteps = 1", 'case.toml:1: there is no section "runs". Did you mean "run"?'),
        ("\n[run]\nsteps = 1\nstepz = 1", 'case.toml:4: there is no key "run.stepz". Did you mean "steps"?'),
        ("run.stepz = 1", 'case.toml:1: there is no key "run.stepz". Did you mean "steps"?'),
        ("[grid]\n[run] # how long\n'stepz' = 1", 'case.toml:3: there is no key "run.stepz". Did you mean "steps"?'),
        ("#\nrun = {stepz = 1}", 'case.toml:2: there is no key "run.stepz". Did you mean "steps"?'),
        ("[operator.r]\natoll = 1", 'case.toml:2: there is no key "operator.r.atoll". Did you mean "atol"?'),
        ("[kernel.parameters]\nx = 1", 'case.toml:1: there is no key "kernel.parameters". Did you mean "params"?'),
        ("[float]\nx = 1", 'case.toml:1: there is no section "float". Known: controller, exchange,'),
        ("['list[int]']\nx = 1", 'case.toml:1: there is no section "list[int]".'),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest(folder: Path, text: str, said: str) -> None:
    assert _complaint(folder, text).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\nsteps = 'ten'", "case.toml:2: run.steps = 'ten': input should be a valid integer."),
        ("[run]\nsteps = 1.0", "case.toml:2: run.steps = 1.0: input should be a valid integer."),
        ("[run]\nsteps = true", "case.toml:2: run.steps = True: input should be a valid integer."),
        ("[run]\nsteps = -1", "case.toml:2: run.steps = -1: input should be greater than or equal to 0."),
        ("[run]\ndt = nan", "case.toml:2: run.dt = nan: input should be "),
        ("[run]\ndt = 0", "case.toml:2: run.dt = 0: input should be greater than 0."),
        ("[grid]\nshape = [8, 'x']", "case.toml:2: grid.shape = [8, 'x']: input should be a valid integer."),
        ("[grid]\nshape = [\n  8,\n  'x',\n]", "case.toml:2: grid.shape = [8, 'x']: input should be a valid integer."),
        ("[operator.float]\natol = 'x'", "case.toml:2: operator.float.atol = 'x': input should be a valid number."),
        ("[controller]\nmode = 'off'", "case.toml:2: controller.mode = 'off': input should be 'physics', 'shadow',"),
        ("kernel = 3", "case.toml:1: kernel = 3: input should be a valid dictionary"),
        ("[[run]]\nsteps = 3", "case.toml:1: run = [{'steps': 3}]: input should be a valid dictionary"),
        (
            "[learning]\nanchors = 0.4\nrecent = 0.8",
            "case.toml: learning.anchors = 0.4 and learning.recent = 0.8 are shares of one buffer and come to 1.2",
        ),
        ("[learning]\nanchors = 1.0", "case.toml:2: learning.anchors = 1.0: input should be less than 1."),
        ("[learning]\nrecent = 0.0", "case.toml:2: learning.recent = 0.0: input should be greater than 0."),
        ("[controller]\ntwin_every = -1", "case.toml:2: controller.twin_every = -1: input should be greater than or"),
        ("[controller]\ntwin_steps = 0", "case.toml:2: controller.twin_steps = 0: input should be greater than or"),
        (
            "[controller]\ntwin_every = 9",
            "case.toml:1: controller.twin_steps = 10 is more than controller.twin_every = 9",
        ),
        ("[learning]\nbuffer = 100", "case.toml: learning.first = 20000 samples never fit into learning.buffer = 100"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(folder: Path, text: str, said: str) -> None:
    assert _complaint(folder, text).startswith(said)


def test_a_wrong_value_points_to_the_explanation_that_exists(folder: Path) -> None:
    for text in ("[run]\nsteps = 'ten'", "[operator.r]\natol = 'x'", "kernel = 3"):
        command = _complaint(folder, text).rpartition("`coupler explain ")[2].partition("`")[0]

        assert explain(command)


def test_a_missing_file_is_named_with_the_nearest(folder: Path) -> None:
    (folder / "case.toml").touch()

    with pytest.raises(ConfigError, match=r'no case file .*/cases\.toml\. Did you mean "case\.toml"\?'):
        read_case(folder / "cases.toml")
    with pytest.raises(ConfigError, match="no case file"):
        read_case(folder / "nowhere" / "case.toml")
    with pytest.raises(ConfigError, match="no case file"):
        read_case(folder)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_case("x" * 5000)


@pytest.mark.parametrize(
    "text", ["run", "[run", "[run]\nsteps = 1\nsteps = 2", "x = " + "[" * 5000, "x = " + "9" * 5000, "x = 2000-13-01"]
)
def test_what_is_no_toml_is_said_to_be_none(folder: Path, text: str) -> None:
    assert _complaint(folder, text).startswith("case.toml is not valid TOML: ")


def test_a_file_that_is_no_text_cannot_be_read(folder: Path) -> None:
    (folder / "case.toml").write_bytes(b"[run]\nsteps = \xff")

    with pytest.raises(ConfigError, match=r"case\.toml cannot be read"):
        read_case(folder / "case.toml")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("run.steps=7", "run.steps", 7),
        (" run . steps = 7 ", "run.steps", 7),
        ("run.dt=1e-3", "run.dt", 1e-3),
        ("controller.mode=physics", "controller.mode", "physics"),
        ("surrogate.device=cuda:0", "surrogate.device", "cuda:0"),
        ("surrogate.device='cuda:0'", "surrogate.device", "cuda:0"),
        ("ray.address=", "ray.address", ""),
        ("grid.shape=[64,64]", "grid.shape", [64, 64]),
        ("grid.periodic=[true, false]", "grid.periodic", [True, False]),
        ("kernel.params.rate=2.5", "kernel.params", {"rate": 2.5}),
        ("kernel.params.rates={a = 1, b = [2, 3]}", "kernel.params", {"rates": {"a": 1, "b": [2, 3]}}),
        ("kernel.params.a.b.c=x=y", "kernel.params", {"a": {"b": {"c": "x=y"}}}),
        ("kernel.params={a = 1}", "kernel.params", {"a": 1}),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_word(folder: Path, override: str, key: str, value: object) -> None:
    case = _read(folder, "[run]\nsteps = 3", override)

    section, name = key.split(".")
    assert getattr(getattr(case, section), name) == value


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(folder: Path) -> None:
    case = _read(folder, "[kernel.params]\na = 1\nb = 1\nc = 1", "kernel.params.b=2", "kernel.params.b=3")

    assert case.kernel.params == {"a": 1, "b": 3, "c": 1}


def test_an_override_sets_the_tolerance_of_one_operator(folder: Path) -> None:
    case = _read(folder, "[operator.reaction]\nrtol = 1e-3", "operator.reaction.atol=[1e-6, 1e-8]")

    assert case.operator["reaction"] == OperatorSection(atol=[1e-6, 1e-8], rtol=1e-3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps=1", "--set steps=1: write section.key=value"),
        ("run.steps", "--set run.steps: write section.key=value"),
        ("run..steps=1", "--set run..steps=1: write section.key=value"),
        ("=1", "--set =1: write section.key=value"),
        ("", "--set : write section.key=value"),
        ("run.steps=ten", "--set run.steps=ten: run.steps = 'ten': input should be a valid integer."),
        ("run.steps=5\nfoo = 6", "--set run.steps=5\nfoo = 6: run.steps = "),
        ("run.stepz=1", '--set run.stepz=1: there is no key "run.stepz". Did you mean "steps"?'),
        ("runs.steps=1", '--set runs.steps=1: there is no section "runs". Did you mean "run"?'),
        ("run.steps.x=1", '--set run.steps.x=1: "steps" is a value, not a section.'),
        ("kernel.params.x=\udcff", "--set 'kernel.params.x=\\udcff' holds bytes that are no text"),
    ],
)
def test_a_wrong_override_is_named_instead_of_the_file(folder: Path, override: str, said: str) -> None:
    assert _complaint(folder, "[run]\nsteps = 3", override).startswith(said)


def test_a_case_is_frozen() -> None:
    case = Case()

    with pytest.raises(ValidationError, match="frozen"):
        case.run.steps = 5  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        case.run = case.run  # type: ignore[misc]


def test_two_cases_share_no_parameters() -> None:
    Case().kernel.params["rate"] = 1

    assert Case().kernel.params == {}


def test_files_of_plug_ins_are_relative_to_the_folder_of_the_case(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cases").mkdir()
    monkeypatch.chdir(folder)

    case = _read(Path("cases"), "[kernel]\nname = '../mine.py:Kernel'\n[surrogate]\nname = 'models.py:Model'")

    assert case.kernel.name == f"{folder.resolve()}/mine.py:Kernel"
    assert case.surrogate.name == f"{folder.resolve()}/cases/models.py:Model"


def test_modules_of_plug_ins_keep_their_names(folder: Path) -> None:
    assert _read(folder, "[kernel]\nname = 'mine.kernels:Kernel'").kernel.name == "mine.kernels:Kernel"


def test_a_plug_in_that_cannot_be_a_path_is_refused(folder: Path) -> None:
    (folder / "circle.py").symlink_to("circle.py")

    assert "cannot be the path of a file" in _complaint(folder, "[kernel]\nname = 'a\\u0000.py:X'".replace("'", '"'))
    assert "circle.py" in _complaint(folder, "[kernel]\nname = 'circle.py:X'")


def test_the_effective_case_says_everything_and_reads_back(folder: Path) -> None:
    text = """
    [kernel]
    name = "mine.py:Kernel"
    [kernel.params]
    day = 2001-02-03
    noon = 12:00:00
    most = inf
    nested = [{ a = 1 }, { b = [true, "ä"] }]
    [grid]
    shape = [8, 8]
    periodic = [true, false]
    [operator.reaction]
    atol = [1e-6, 1e-300]
    [controller]
    threshold = 0
    """
    case = _read(folder, text)

    again = _read(folder, case.to_toml())

    assert again == case
    assert case.kernel.params["day"] == date(2001, 2, 3)
    assert case.kernel.params["noon"] == time(12)
    written = tomllib.loads(case.to_toml())
    assert {key for key, default in _keys().items() if default is not None and "NAME" not in key} <= {
        f"{section}.{key}" for section, keys in written.items() for key in keys
    }


FRAGMENTS = [
    "[run]", "[kernel]", "[kernel.params]", "[grid]", "[operator.r]", "[controller]", "[learning]", "[float]", "run",
    "steps", "dt", "seed", "shape", "name", "atol", "mode", "params", "int", ".", " = ", "=", "\n", "\r", "\x00", "#",
    "'", '"', '"""', "[", "]", "[[", "{", "}", ",", "1", "-1", "1e-3", "inf", "nan", "true", "2000-01-01", "a.py:X",
    "\\u0000", "\u2028", "ä",
]  # fmt: skip
words = st.sampled_from([*Case.model_fields, *(key.rpartition(".")[2] for key in _keys()), "float", "list[int]", "x"])
plain = st.one_of(st.integers(-5, 10**20), st.floats(), st.booleans(), st.dates(), st.text(max_size=5), words)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
tables = st.dictionaries(words, values | st.dictionaries(words, values, max_size=3), max_size=3)
fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)
texts = st.one_of(st.text(max_size=40), fragments, tables.map(tomli_w.dumps))


@given(text=texts)
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_case_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_text(text, encoding="utf-8")

    try:
        case = read_case(path)
    except ConfigError:
        return
    path.write_text(case.to_toml(), encoding="utf-8")
    # Compared as text: a parameter may be NaN, which is not equal to itself.
    assert read_case(path).to_toml() == case.to_toml()


@given(overrides=st.lists(st.one_of(texts, st.tuples(texts, texts).map("=".join)), max_size=3))
@settings(deadline=None, max_examples=200)
def test_any_override_is_a_case_or_a_sentence(overrides: list[str]) -> None:
    try:
        case = read_case(None, overrides)
    except ConfigError:
        return
    assert tomllib.loads(case.to_toml())


@given(value=st.text(st.characters(), max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_override_of_a_parameter_can_be_written_down(value: str) -> None:
    try:
        case = read_case(None, [f"kernel.params.x={value}"])
    except ConfigError:
        return
    assert case.to_toml().encode("utf-8")
