"""Plug-ins by name: what a name leads to, what it cannot lead to, and that another process finds the same."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from coupler.errors import PluginError
from coupler.kernel import Kernel
from coupler.kernels.heat import Heat
from coupler.plugin import absolute, build, load, load_object, name_of

if TYPE_CHECKING:
    from tests.conftest import Processes

SOURCE = """
from coupler.kernel import Kernel

NUMBER = 7

class Mine(Kernel):
    def start(self, state, grid): ...
    def step(self, state, grid, dt, evaluate): ...

    class Inner(Kernel):
        def start(self, state, grid): ...
        def step(self, state, grid, dt, evaluate): ...

class NotOne: ...

Other = type("Made", (Mine,), {})

def make():
    class Local(Mine): ...
    return Local
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_plugins.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def module(file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The same file, on the path of imports."""
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "my_plugins", raising=False)
    return importlib.import_module("my_plugins")


def test_a_module_and_a_class_name_a_plug_in(module: ModuleType) -> None:
    assert load("my_plugins:Mine", Kernel) is module.Mine
    assert load("coupler.kernels.heat:Heat", Kernel) is Heat


def test_a_file_and_a_class_name_a_plug_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(f"{file}:Mine", Kernel)

    monkeypatch.chdir(file.parent)
    assert load("my_plugins.py:Mine", Kernel) is found
    monkeypatch.chdir("/")
    assert load("../my_plugins.py:Mine", Kernel, folder=file.parent / "cases") is found


def test_a_class_in_a_class_and_an_object_have_names_too(file: Path) -> None:
    assert load(f"{file}:Mine.Inner", Kernel).__qualname__ == "Mine.Inner"
    assert load_object(f"{file}:NUMBER") == 7


def test_a_name_that_a_package_gives_on_demand_is_found() -> None:
    assert load_object("coupler:Kernel") is Kernel


def test_files_of_the_same_name_in_other_folders_are_not_mixed_up(tmp_path: Path) -> None:
    names = ["a/b.py", "a_b.py", "a-b.py", "a.b.py"]
    (tmp_path / "a").mkdir()
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"NUMBER = {number}")

    assert [load_object(f"{tmp_path / name}:NUMBER") for name in names] == [0, 1, 2, 3]


def test_the_module_of_a_file_has_a_short_name(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 10, "plug in.py")
    deep.parent.mkdir(parents=True)
    deep.write_text(SOURCE)

    # Numba makes it part of a file's name, of which most file systems take 255 bytes.
    assert len(load(f"{deep}:Mine", Kernel).__module__) < 80


def test_a_file_is_run_once(file: Path) -> None:
    file.write_text(f"{SOURCE}\nopen({str(file) + '.ran'!r}, 'a').write('x')")

    load(f"{file}:Mine", Kernel)
    load(f"{file}:Mine.Inner", Kernel)

    assert Path(f"{file}.ran").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mine", '"Mine" does not name a plug-in: write package.module:Class or path/to/file.py:Class.'),
        (":Mine", '":Mine" does not name a plug-in'),
        ("my_plugins:", '"my_plugins:" does not name a plug-in'),
        ("", '"" does not name a plug-in'),
        ("my_plugins:Mne", 'There is no "Mne" in my_plugins. Did you mean "Mine"?'),
        ("my_plugins:Mine.Iner", 'There is no "Iner" in my_plugins. Did you mean "Inner"?'),
        ("my_plugins:NUMBER.x", 'There is no "x" in my_plugins.'),
        ("my_plugins.deeper:Mine", 'There is no module "my_plugins.deeper". Install it, or name the file'),
        ("my_plugin:Mine", 'There is no module "my_plugin". Install it, or name the file'),
        ("coupler.kernels.heet:Heat", 'file: path/to/file.py:Class. Did you mean "heat"?'),
        ("coupler.kernel_s.heat:Heat", 'file: path/to/file.py:Class. Did you mean "kernels"?'),
        ("my_plugin.py:Mine", 'my_plugin.py. Did you mean "my_plugins.py"?'),
        ("nowhere/my_plugins.py:Mine", "nowhere/my_plugins.py."),
        ("my_plugins.py:Mne", 'There is no "Mne" in my_plugins.py. Did you mean "Mine"?'),
        ("my_plugins:NotOne", '"my_plugins:NotOne" is not a Kernel: derive the class from coupler.Kernel.'),
        ("my_plugins:NUMBER", '"my_plugins:NUMBER" is not a Kernel'),
        ("my_plugins:make", '"my_plugins:make" is not a Kernel'),
        (".my_plugins:Mine", '".my_plugins" cannot be imported: TypeError'),
        ("a\0.py:Mine", "cannot be the path of a file"),
        ("x" * 5000 + ".py:Mine", "cannot be the path of a file"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_the_nearest(module: ModuleType, name: str, said: str) -> None:
    assert module.__file__ is not None
    with pytest.raises(PluginError) as caught:
        load(name, Kernel, folder=Path(module.__file__).parent)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: "),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("import not_installed.at_all", "not_installed"),
    ],
)
@pytest.mark.parametrize("by", ["file", "module"])
def test_a_plug_in_that_fails_at_import_is_a_sentence(
    file: Path, monkeypatch: pytest.MonkeyPatch, by: str, line: str, said: str
) -> None:
    file.with_name("failing.py").write_text(line)
    monkeypatch.syspath_prepend(str(file.parent))
    name = f"{file.parent}/failing.py" if by == "file" else "failing"

    for _ in range(2):  # nothing half imported may be left of the first attempt
        with pytest.raises(PluginError, match=r"failing.*cannot be imported") as caught:
            load(f"{name}:Mine", Kernel)

        assert said in str(caught.value)


def test_a_class_inside_a_function_has_no_name(module: ModuleType) -> None:
    with pytest.raises(PluginError, match=r'"make\.<locals>\.Local" is defined inside a function'):
        name_of(module.make())


def test_a_class_that_is_not_where_its_name_says_has_no_name(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = module.Mine

    with pytest.raises(PluginError, match='has no class under the name "Made"'):
        name_of(module.Other)
    monkeypatch.setattr(module, "Mine", module.NotOne)
    with pytest.raises(PluginError, match='no class under the name "Mine"'):
        name_of(mine)


@pytest.mark.parametrize("path", ["Mine", "Mine.Inner"])
def test_a_class_is_found_by_its_name_in_another_process(
    file: Path, module: ModuleType, processes: "Processes", path: str
) -> None:
    by_file, by_module = load_object(f"{file}:{path}"), load_object(f"my_plugins:{path}")
    assert isinstance(by_file, type)
    assert isinstance(by_module, type)

    assert name_of(by_file) == f"{file}:{path}"
    assert name_of(by_module) == f"my_plugins:{path}"
    names = [name_of(by_file), name_of(by_module), name_of(Heat)]
    code = f"from coupler.plugin import load_object\nfor name in {names}: print(load_object(name).__qualname__)"
    said = processes.run([sys.executable, "-c", code], timeout=60, environment={"PYTHONPATH": str(file.parent)}).stdout
    assert said.split() == [path, path, "Heat"]


def test_the_classes_of_the_running_script_are_those_it_runs_with(file: Path, processes: "Processes") -> None:
    script = """
from coupler.plugin import load, load_object, name_of
if __name__ == "__main__":
    assert load(f"{__file__}:Mine", Kernel) is Mine
    assert load("my_plugins.py:Mine", Kernel) is Mine
    print(name_of(Mine))
"""
    file.write_text(SOURCE + script)

    finished = processes.run([sys.executable, file.name], timeout=60)

    assert (finished.returncode, finished.stdout.strip()) == (0, f"{file}:Mine")
    assert load(finished.stdout.strip(), Kernel).__qualname__ == "Mine"


def test_a_class_that_was_typed_into_a_shell_has_no_name() -> None:
    code = "from coupler.plugin import name_of\nclass Typed: ...\nname_of(Typed)"

    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert '"Typed" was typed into a shell, so no other process can import it: put it into a file.' in finished.stderr


class Built:
    def __init__(self, first: int, *, width: int, depth: int = 1) -> None:
        if width < 0:
            raise ValueError(f"width = {width} is negative")
        self.all = (first, width, depth)


class Open:
    def __init__(self, first: int, **anything: int) -> None:
        self.anything = anything


def test_a_plug_in_is_built_with_the_parameters_of_its_case() -> None:
    assert build(Built, {"width": 2}, 7, key="kernel.params").all == (7, 2, 1)
    assert build(Open, {"any": 1}, 7, key="kernel.params").anything == {"any": 1}


@pytest.mark.parametrize(
    ("plugin", "params", "said"),
    [
        (Built, {"widths": 2}, 'kernel.params.widths: Built has no parameter "widths". Did you mean "width"?'),
        (Built, {"first": 2}, 'kernel.params.first: Built has no parameter "first".'),
        (Built, {}, "kernel.params: Built cannot be built with these parameters: "),
        (Built, {"width": -1}, "kernel.params: Built cannot be built with these parameters: width = -1 is negative."),
        (Built, {"width": "x"}, "kernel.params: Built cannot be built with these parameters: "),
        (Open, {"first": 1}, "kernel.params: Open cannot be built with these parameters: "),
    ],
)
def test_parameters_that_do_not_fit_are_named(plugin: type, params: dict[str, object], said: str) -> None:
    with pytest.raises(PluginError) as caught:
        build(plugin, params, 7, key="kernel.params")

    assert str(caught.value).startswith(said)


def test_only_names_of_files_depend_on_a_folder(tmp_path: Path) -> None:
    assert absolute("a/../b.py:X", tmp_path) == f"{tmp_path.resolve()}/b.py:X"
    assert absolute("/elsewhere/b.py:X", tmp_path) == "/elsewhere/b.py:X"
    assert absolute("package.module:X", tmp_path) == "package.module:X"
    assert absolute("nothing", tmp_path) == "nothing"
