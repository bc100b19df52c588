"""``coupler check`` passes the stock plug-ins and finds each broken promise, and only that one."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.check import CheckLine, check_plugin
from coupler.errors import ConfigError, PluginError
from coupler.kernel import Kernel
from coupler.surrogate import Surrogate
from tests.contract.optional import MISSING

if TYPE_CHECKING:
    from tests.conftest import MpiRun

ROOT = Path(__file__).resolve().parents[2]

OPERATOR = """
import numpy as np
from coupler.field import Field
from coupler.operator import Operator

calls = []
u, v = Field("u", bounds=(0, None)), Field("v", bounds=(0, None))

def truth(inputs, dt):
    flow = 0.5 * dt * (inputs[:, 0] - inputs[:, 1])
    outputs = np.column_stack((inputs[:, 0] - flow, inputs[:, 1] + flow))
    {body}
    return outputs

operator = Operator(
    truth, inputs=(u, v), outputs=(u, v), atol=1e-6, rtol=1e-3, conserved={{"mass": {{"u": 1.0, "v": 1.0}}}}
)
"""

KERNEL = """
import numpy as np
from coupler.field import Field
from coupler.kernel import Kernel
from coupler.operator import Operator

def decay(inputs, dt):
    return inputs * np.exp(-dt)

class Mixing(Kernel):
    fields = (Field("u", bounds=(0, 10)),)
    dimensions = (1, 2)
    reaction = Operator(decay, inputs=("u",), outputs=("u",), atol=1e-6, rtol=1e-3)

    def __init__(self, *, level: float = 1.0):
        self.level, self.steps = level, 0

    def start(self, state, grid):
        state["u"].interior[...] = {start}

    def step(self, state, grid, dt, evaluate):
        {before}
        u = state["u"].array
        state["u"].interior[...] += 0.1 * dt * (np.roll(u, 1, axis=0) - u)[(slice(1, -1),) * u.ndim]
        {after}
"""
IDS = "self.level + 1e-3 * grid.ids.reshape(grid.local_shape)"

SURROGATE = """
import numpy as np
import torch
from coupler.surrogate import Prediction, Surrogate

class Linear(Surrogate):
    def __init__(self, signature, *, scale: float = 1.0):
        super().__init__(signature)
        self.scale = scale
        shape = len(signature.inputs), len(signature.outputs)
        self.weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        self.outside = 0.0

    def fit(self, samples, *, seed, seconds=None):
        inputs, truth = torch.from_numpy(samples.inputs), torch.from_numpy(samples.truth)
        with torch.no_grad():
            self.weight.copy_((inputs[:, :, None] * truth[:, None, :]).mean(0) / inputs.square().sum(1).mean())
        {fit}

    def predict(self, inputs, dt):
        mean = (inputs[:, :, None] * self.weight).sum(1) * self.scale
        score = inputs.abs().sum(1)
        {predict}
        return Prediction(mean, score)

    def fused(self):
        {fused}

    def answer(self, factor, inputs, dt, mean, score):
        mean[...] = (inputs[:, :, None] * self.weight.detach().numpy()).sum(1) * self.scale * factor
        score[...] = np.abs(inputs).sum(1)
"""

BROKEN_TRUTHS = {
    "the truth leaves its inputs as they are": "inputs[:, 0] = 0.0",
    "an answer depends on its own row only": "outputs *= 1.0 + 0.0 * dt + 1e-12 * len(inputs)",
    "the truth is bitwise repeatable": "outputs[0] *= 1.0 + 1e-15 * len(calls); calls.append(1)",
    "the truth returns one row per element": "outputs = np.column_stack((outputs, outputs))",
    "answers are finite": "outputs[inputs[:, 0] > 1.0] = np.nan",
    "answers are within the bounds": "outputs[:, 0], outputs[:, 1] = -1.0, outputs[:, 1] + outputs[:, 0] + 1.0",
    "conserved sums are kept": "outputs[:, 1] *= 1.0 + 1e-6",
}

EXCHANGE, EVALUATE = "grid.exchange(state)", "evaluate(self.reaction, state, dt)"
BROKEN_KERNELS = {
    "a step exchanges halos before it reads them": (IDS, "pass", EVALUATE),
    "a step is bitwise repeatable": (
        IDS,
        EXCHANGE,
        f"self.steps += 1; state['u'].interior[...] *= 1.0 + 1e-9 * self.steps; {EVALUATE}",
    ),
    "a copy of a state, stepped in turn with it, goes the same way": (
        f"(setattr(self, 'steps', 0), {IDS})[1]",
        EXCHANGE,
        f"{EVALUATE}; self.steps += 1; state['u'].interior[...] *= 1.0 + 1e-9 * self.steps",
    ),
    "start is bitwise repeatable": ("np.random.default_rng().random(grid.local_shape)", EXCHANGE, EVALUATE),
    "start fills all fields": (f"-1.0 - {IDS}", EXCHANGE, EVALUATE),
    "3 steps leave all fields finite": (IDS, EXCHANGE, f"{EVALUATE}; state['u'].interior[...] = np.nan"),
}
STRANGERS = {
    "which is no attribute": "evaluate(Operator(decay, inputs=('u',), outputs=('u',), atol=1, rtol=1), state, dt)",
    "it never calls evaluate": "pass",
}

BROKEN_SURROGATES = {
    "an answer depends on its own row only": {"predict": "mean = mean - 1e-9 * mean.mean(0)"},
    "predict is bitwise repeatable": {"predict": "self.outside += 1e-3; mean = mean + self.outside"},
    "mean and score are finite": {"predict": "mean = mean / 0.0"},
    "the score is not negative": {"predict": "score = -score"},
    "predict returns mean (n, n_out)": {"predict": "score = score[:, None]"},
    "fit and predict leave their inputs": {"predict": "inputs += 1.0"},
    "saved as safetensors": {"fit": "self.outside = 1.0", "predict": "mean = mean + self.outside"},
    "the same samples and seed": {"fit": "self.weight.data += 1e-9 * torch.rand(1, dtype=torch.float64)"},
    "fit learns from 400 samples": {"fit": "raise RuntimeError('singular')"},
    "its fused form, if it has one, answers as predict": {"fused": "return lambda *rows: self.answer(1.001, *rows)"},
    "its fused form, if it has one": {"fused": "return lambda *rows: self.answer(1 + 1e-9 * len(rows[0]), *rows)"},
}


def stock(folder: str, kind: type) -> list[object]:
    names: list[object] = []
    for path in sorted((ROOT / folder).glob("[!_]*.py")):
        if folder == "models" and path.stem in MISSING:
            reason = f"{MISSING[path.stem]} is not installed"
            names.append(pytest.param(path.stem, marks=pytest.mark.skip(reason=reason)))
            continue
        module = importlib.import_module(f"coupler.{folder}.{path.stem}")
        own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
        names += [f"{module.__name__}:{item.__name__}" for item in own if issubclass(item, kind)]
    return names


def failures(lines: list[CheckLine]) -> list[CheckLine]:
    return [line for line in lines if not line.passed]


def written(folder: Path, text: str, **parts: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "plugin.py"
    path.write_text(text.format(**parts))
    return path


def kernel_file(folder: Path, start: str = IDS, before: str = EXCHANGE, after: str = EVALUATE) -> Path:
    return written(folder, KERNEL, start=start, before=before, after=after)


def surrogate_file(folder: Path, fit: str = "pass", predict: str = "pass", fused: str = "return None") -> Path:
    return written(folder, SURROGATE, fit=fit, predict=predict, fused=fused)


@pytest.mark.parametrize("name", [*stock("kernels", Kernel), *stock("models", Surrogate)])
def test_stock_plugins_keep_their_contract(name: str) -> None:
    lines = check_plugin(name, [])

    assert len(lines) >= 10
    assert failures(lines) == []


def test_sound_plugins_of_the_user_pass(tmp_path: Path) -> None:
    names = [
        f"{written(tmp_path / 'operator', OPERATOR, body='pass')}:operator",
        f"{kernel_file(tmp_path / 'kernel')}:Mixing",
        f"{surrogate_file(tmp_path / 'surrogate')}:Linear",
    ]

    assert [failures(check_plugin(name, [])) for name in names] == [[], [], []]


@pytest.mark.parametrize("promise", BROKEN_TRUTHS)
def test_a_broken_truth_fails_its_own_line_only(tmp_path: Path, promise: str) -> None:
    path = written(tmp_path, OPERATOR, body=BROKEN_TRUTHS[promise])

    failed = failures(check_plugin(f"{path}:operator", []))

    assert [line.line[: len(promise)] for line in failed] == [promise]
    assert failed[0].detail


@pytest.mark.parametrize("promise", BROKEN_KERNELS)
def test_a_broken_kernel_fails_its_own_line_only_in_every_dimension(tmp_path: Path, promise: str) -> None:
    path = kernel_file(tmp_path, *BROKEN_KERNELS[promise])

    failed = failures(check_plugin(f"{path}:Mixing", []))

    assert [line.line[: 5 + len(promise)] for line in failed] == [f"1-D: {promise}", f"2-D: {promise}"]


@pytest.mark.parametrize("detail", STRANGERS)
def test_only_what_is_declared_may_be_evaluated(tmp_path: Path, detail: str) -> None:
    path = kernel_file(tmp_path, after=STRANGERS[detail])

    failed = failures(check_plugin(f"{path}:Mixing", []))

    assert {line.line[5:] for line in failed} == {"a step evaluates declared operators and no others"}
    assert detail in failed[0].detail


@pytest.mark.parametrize("promise", BROKEN_SURROGATES)
def test_a_broken_surrogate_fails_its_own_line_only(tmp_path: Path, promise: str) -> None:
    path = surrogate_file(tmp_path, **BROKEN_SURROGATES[promise])

    failed = failures(check_plugin(f"{path}:Linear", []))

    assert [line.line[: len(promise)] for line in failed] == [promise]


def test_what_a_plugin_raises_is_the_detail_and_the_other_lines_go_on(tmp_path: Path) -> None:
    path = written(tmp_path, OPERATOR, body="assert len(inputs) > 1, 'one is too few'")

    lines = check_plugin(f"{path}:operator", [])

    assert [line.detail for line in failures(lines)] == ["raised AssertionError: one is too few (plugin.py:12)"]
    assert lines[-1].passed


def test_a_truth_of_a_kernel_is_tried_on_the_kernels_own_elements(tmp_path: Path) -> None:
    path = kernel_file(tmp_path, start="5.0 + 0.0 * grid.ids.reshape(grid.local_shape)")
    path.write_text(
        path.read_text().replace("return inputs", "assert abs(inputs - 5.0).max() < 0.1\n    return inputs")
    )

    lines = check_plugin(f"{path}:Mixing.reaction", [])

    assert len(lines) > 5
    assert failures(lines) == []


def test_settings_reach_the_constructor_and_the_time_step(tmp_path: Path) -> None:
    path = kernel_file(
        tmp_path, after=f"{EVALUATE}; state['u'].interior[...] += 100.0 * (dt > 1.0) / (dt < 1.0 or 0.0)"
    )

    assert failures(check_plugin(f"{path}:Mixing", ["level=2.5", "run.dt=0.5"])) == []
    assert "raised" in failures(check_plugin(f"{path}:Mixing", ["run.dt=2"]))[0].detail
    assert "outside of" in failures(check_plugin(f"{path}:Mixing", ["level=20.0"]))[0].detail


def test_an_unknown_parameter_fails_the_first_line_and_nothing_else_is_tried(tmp_path: Path) -> None:
    kernel = check_plugin(f"{kernel_file(tmp_path / 'kernel')}:Mixing", ["lvel=2.5"])
    surrogate = check_plugin(f"{surrogate_file(tmp_path / 'surrogate')}:Linear", ["scael=2"])

    assert [line.passed for line in kernel] == [line.passed for line in surrogate] == [False]
    assert 'Did you mean "level"?' in kernel[0].detail
    assert 'Did you mean "scale"?' in surrogate[0].detail


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["level"], "write key=value"),
        (["=3"], "write key=value"),
        (["run.dt=fast"], "write a positive number"),
        (["run.dt=-1"], "write a positive number"),
    ],
)
def test_a_malformed_setting_says_what_to_write(tmp_path: Path, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_plugin(f"{kernel_file(tmp_path)}:Mixing", settings)


def test_an_operator_object_takes_no_parameters(tmp_path: Path) -> None:
    path = written(tmp_path, OPERATOR, body="pass")

    with pytest.raises(ConfigError, match="takes no parameters"):
        check_plugin(f"{path}:operator", ["rate=2"])


def test_what_is_no_plugin_is_refused_by_name(tmp_path: Path) -> None:
    path = kernel_file(tmp_path)

    with pytest.raises(PluginError, match="neither a Kernel or Surrogate class nor an Operator"):
        check_plugin(f"{path}:decay", [])
    with pytest.raises(PluginError, match=r'no operator "reacton"\. Did you mean "reaction"\?'):
        check_plugin(f"{path}:Mixing.reacton", [])


def test_on_several_ranks_a_kernel_that_depends_on_the_decomposition_is_found(tmp_path: Path, mpirun: "MpiRun") -> None:
    sound = kernel_file(tmp_path)
    by_rank = tmp_path / "by_rank.py"
    by_rank.write_text(sound.read_text().replace(IDS, "self.level + 1e-3 * grid.rank"))
    code = (
        "from coupler.check import check_plugin\n"
        f"for path in ({str(sound)!r}, {str(by_rank)!r}):\n"
        "    print([line.line for line in check_plugin(path + ':Mixing', []) if not line.passed], flush=True)\n"
    )

    finished = mpirun(2, "-c", code, environment={"PYTHONPATH": str(ROOT)})

    assert finished.returncode == 0, finished.stdout
    said = finished.stdout.splitlines()
    broken = str([f"{number}-D: start and 3 steps are bitwise the same on 2 ranks as on one" for number in (1, 2)])
    assert sorted(line for line in said if line.startswith("[")) == sorted(["[]", "[]", broken, broken])
