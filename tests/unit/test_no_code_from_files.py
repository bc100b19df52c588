"""No file that a run reads is code: nothing here unpickles, evaluates or executes, and plug-ins come in by one door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from coupler.config import read_case
from coupler.errors import CouplerError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("coupler", "kernels", "models", "launch") for path in (ROOT / folder).rglob("*.py")
)
# Modules whose files are programs to whoever loads them.
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CODE = {"eval", "exec", "compile", "__import__", "execfile"}
# Where modules are imported by a name that is only known when the program runs: what a case names, and nothing else.
DOORS = {"coupler/plugin.py": {"import_module", "exec_module"}}
DYNAMIC = {"import_module", "exec_module", "run_path", "run_module", "load_module"}
LOADERS = {"kernels/mechanism_file.py", "coupler/kernels/mechanism_file.py"}  # a safe loader with other numbers


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_ours_neither_unpickles_nor_evaluates(path: Path) -> None:
    name = str(path.relative_to(ROOT))

    found = list(offences(name, ast.parse(path.read_text())))

    assert not found, found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "eval(text)",
        "exec(text)",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "importlib.import_module(name)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
    ],
)
def test_what_is_looked_for_would_be_found(line: str) -> None:
    assert list(offences("coupler/some.py", ast.parse(line)))


def test_a_model_that_is_put_into_eval_mode_is_no_offence() -> None:
    assert not list(offences("coupler/some.py", ast.parse("model.eval()\nnp.load(path, allow_pickle=False)")))


def test_reading_a_case_does_not_run_the_plug_in_it_names(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "case.toml").write_text(
        "".join(f'[{key}]\nname = "evil.py:X"\n' for key in ("kernel", "surrogate"))
        + '[controller]\npolicy = "evil.py:X"\n'
    )

    case = read_case(tmp_path / "case.toml")

    assert case.kernel.name == f"{tmp_path.resolve()}/evil.py:X"


@pytest.mark.parametrize(
    "name", ["{__import__('os')}", "__import__('os').getcwd()", "os.system('true'):X", ":", "a:b:c"]
)
def test_a_name_is_a_name_and_never_an_expression(name: str) -> None:
    from coupler.plugin import load_object

    with pytest.raises(CouplerError):
        load_object(name)


def offences(name: str, tree: ast.AST) -> Iterator[str]:
    """Say what in a source would make a program of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            yield from (f"{node.lineno}: {module}" for module in modules if module.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.Call) and (call := _offence(name, node)):
            yield f"{node.lineno}: {call}"


def _offence(name: str, node: ast.Call) -> str:
    keywords = {item.arg: item.value for item in node.keywords}
    if isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in CODE else ""
    if not isinstance(node.func, ast.Attribute):
        return ""
    called, owner = node.func.attr, ast.unparse(node.func.value)
    allowed = keywords.get("allow_pickle")
    wrong = (
        (owner == "torch" and called == "load")
        or (owner in ("np", "numpy") and called == "load" and not _is(allowed, False))
        or (owner == "yaml" and "load" in called and called != "safe_load" and name not in LOADERS)
        or (called in DYNAMIC and called not in DOORS.get(name, set()))
        or _is(keywords.get("shell"), True)
        or (owner == "os" and called in ("system", "popen"))
    )
    return f"{owner}.{called}" if wrong else ""


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
