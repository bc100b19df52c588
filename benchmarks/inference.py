"""The forward alone, on one thread: every form that the product knows of a model, beside what torch gives by itself.

``coupler`` is the form that was chosen when the model was loaded, answering as the server does; ``coupler-FORM`` each
form by name. ``torch-eager`` is ``predict`` on the whole batch, what people write; ``torch-func-vmap`` the ensemble as
torch's own tutorial has it; ``torch-chunked`` the best that stock torch gives: chunks that stay in the cache, of the
size that was fastest here, activations in place. ``gemm-limit`` is what the operations of the net's matrix products
would take at the rate of a large square product. All answers are compared with those of ``torch-eager``.
"""

import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mpi4py import MPI
from numpy.typing import NDArray

from benchmarks.harness import torch_forwards
from benchmarks.harness.models import GeluEnsemble, PlainMLP, columns
from benchmarks.harness.timing import Effort, Repeat, Row, each, in_turns, row
from benchmarks.harness.torch_forwards import Answer
from coupler.errors import PluginError
from coupler.grid import Grid
from coupler.kernel import evaluate_truth, gather
from coupler.kernels.bz import BZ
from coupler.learning.registry import ModelCard
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.plugin import name_of
from coupler.records import Rows
from coupler.serving.predictor import Predictor
from coupler.surrogate import Prediction, Samples, Surrogate

FORMS = ("fused", "eager", "bf16", "compiled")
ELEMENTS = (1, 32, 16384, 262144)
EFFORT = Effort(rounds=5, seconds=0.2, most=2000)
CASE = Path(__file__).resolve().parents[1] / "launch" / "bz" / "case.toml"
# Cells along an edge and steps of the spirals that the BZ model is fitted to, and the processor time for that [s].
_EDGE, _STEPS, _FIT_SECONDS = 64, 200, 1.0
_DT = 0.1
_VERSION = 1
_COMPILER_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
# What rounding in single precision may change, in tolerances of the operator.
_ROUNDING = 0.1
# Rows of the square product that stands for the rate of the core.
_PRODUCT, _MOST_PRODUCTS = 768, 20


@dataclass(frozen=True)
class Net:
    """A model to be asked.

    Parameters
    ----------
    name : str
        The first half of its cases.
    surrogate : Surrogate
        The model.
    sizes : tuple of int
        Columns of its features, its layers and its outputs.
    members : int
        Nets of these sizes.
    inputs : ndarray (n, n_in)
        Typical elements.
    dt : float
        Time step of all of them.
    """

    name: str
    surrogate: Surrogate
    sizes: tuple[int, ...]
    members: int
    inputs: NDArray[np.float64]
    dt: float

    @property
    def card(self) -> ModelCard:
        """What is known of the model: the ranges it is tried on when it is loaded."""
        return ModelCard(
            version=_VERSION,
            operator=self.name,
            surrogate=name_of(type(self.surrogate)),
            params={},
            signature=self.surrogate.signature.to_json(),
            step=0,
            samples=len(self.inputs),
            range_lower=tuple(self.inputs.min(axis=0)),
            range_upper=tuple(self.inputs.max(axis=0)),
            range_dt=(self.dt, self.dt),
            threshold=1.0,
            holdout_loss=0.0,
            holdout_accepted=1.0,
            seconds=0.0,
            sha256="",
        )

    @property
    def operations(self) -> int:
        """Additions and multiplications of the matrix products for one element."""
        return 2 * self.members * sum(n * m for n, m in zip(self.sizes, self.sizes[1:], strict=False))

    def batch(self, elements: int) -> NDArray[np.float64]:
        """Draw so many elements."""
        return self.inputs[np.random.default_rng(elements).integers(0, len(self.inputs), elements)]


def run(
    nets: Sequence[str] = ("mlp", "ensemble", "bz"),
    elements: Sequence[int] = ELEMENTS,
    forms: Sequence[str] = FORMS,
    effort: Effort = EFFORT,
) -> list[Row]:
    """Time one forward of every system.

    Returns
    -------
    list of mapping
        ``case`` (NET/ELEMENTS), ``system``, ``n``, ``median_s``, ``p10_s``, ``p90_s``, ``ns_per_element``, ``gflops``
        and ``share_of_gemm`` (of the matrix products), ``threads``, ``form`` that ours answers in, and
        ``error_in_tolerances``, the largest difference to ``torch-eager``.
    """
    rows: list[Row] = []
    with _one_thread(), _folder_for_compilers():
        for name in nets:
            net = _NETS[name]()
            predictors = _predictors(net, forms)
            for many in elements:
                rows.extend(_case(net, predictors, many, effort))
    return rows


def _case(net: Net, predictors: Mapping[str, Predictor], elements: int, effort: Effort) -> list[Row]:
    inputs = net.batch(elements)
    systems = {name: _asked(predictor, net, inputs) for name, predictor in predictors.items()}
    systems |= _rivals(net, inputs)
    errors = _errors(net, systems)
    repeats: dict[str, Repeat] = {name: each(answer) for name, answer in systems.items()}
    repeats["gemm-limit"] = _products(net.operations * elements)
    timings = in_turns(repeats, effort)
    limit = float(np.median(timings["gemm-limit"]))
    rows = []
    for name, seconds in timings.items():
        median = float(np.median(seconds))
        facts: dict[str, str | int | float] = {
            "ns_per_element": 1e9 * median / elements,
            "gflops": 1e-9 * net.operations * elements / median,
            "share_of_gemm": limit / median,
            "threads": 1,
        }
        if name in predictors:
            facts["form"] = predictors[name].choices[_VERSION].form
        if name in errors:
            facts["error_in_tolerances"] = errors[name]
        rows.append(row(f"{net.name}/{elements}", name, seconds, **facts))
    return rows


def _predictors(net: Net, forms: Sequence[str]) -> dict[str, Predictor]:
    """Load the model once for each form that can be had here, and once for the form that is chosen."""
    found = {}
    for form in ("auto", *forms):
        predictor = Predictor(net.inputs.shape[1], len(net.surrogate.signature.outputs), torch.device("cpu"), form=form)
        try:
            predictor.load(_VERSION, net.surrogate, net.card)
        except PluginError as reason:
            print(f"inference: {net.name} is measured without {form}: {reason}", file=sys.stderr, flush=True)
        else:
            found["coupler" if form == "auto" else f"coupler-{form}"] = predictor
    return found


def _asked(predictor: Predictor, net: Net, inputs: NDArray[np.float64]) -> Answer:
    mean, score = np.zeros((len(inputs), len(net.surrogate.signature.outputs))), np.zeros(len(inputs))
    parts, answered = [Rows(inputs, net.dt, mean, score)], Prediction(torch.from_numpy(mean), torch.from_numpy(score))

    def answer() -> Prediction:
        predictor.predict(parts, _VERSION)
        return answered

    return answer


def _rivals(net: Net, inputs: NDArray[np.float64]) -> dict[str, Answer]:
    rivals = {"torch-eager": torch_forwards.eager(net.surrogate, inputs, net.dt)}
    if isinstance(net.surrogate, GeluEnsemble):
        rivals["torch-func-vmap"] = torch_forwards.stacked_by_func(net.surrogate, inputs)
    rivals["torch-chunked"] = torch_forwards.chunked(net.surrogate, inputs, net.dt)
    return rivals


def _errors(net: Net, systems: Mapping[str, Answer]) -> dict[str, float]:
    """Give the largest differences to what people write, in tolerances; refuse what is no rounding.

    bfloat16 rounds more, on purpose: what that costs is in its row, and the product takes it only where it is little.
    """
    expected = systems["torch-eager"]().mean.clone().numpy()
    found = {}
    for name, answer in systems.items():
        found[name] = float(net.surrogate.signature.error(answer().mean.numpy(), expected).max())
        assert name == "coupler-bf16" or found[name] < _ROUNDING, f"{name} is {found[name]:.3g} tolerances off"
    return found


def _products(operations: int) -> Repeat:
    """Time a large square product, scaled to so many operations."""
    left, right = (torch.rand(_PRODUCT, _PRODUCT) for _ in range(2))
    product = each(partial(torch.mm, left, right, out=torch.empty(_PRODUCT, _PRODUCT)))
    return lambda times: product(min(times, _MOST_PRODUCTS)) * (operations / (2.0 * _PRODUCT**3))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _folder_for_compilers() -> Iterator[None]:
    """Let torch's compiler work in a folder that goes when all is measured, and start no processes of its own."""
    before = os.environ.get(_COMPILER_FOLDER)
    with TemporaryDirectory(prefix="coupler-bench-") as folder:
        os.environ[_COMPILER_FOLDER] = folder
        try:
            from torch._inductor import config  # makes its folder when it is imported

            # Headers that are compiled before would lie elsewhere.
            with config.patch(cpp_cache_precompile_headers=False, compile_threads=1):
                yield
        finally:
            os.environ.pop(_COMPILER_FOLDER, None)
            if before is not None:
                os.environ[_COMPILER_FOLDER] = before


def _plain() -> Net:
    surrogate = PlainMLP(columns(16, 16)).eval()
    return Net("mlp", surrogate, (16, 64, 64, 16), 1, np.random.default_rng(0).random((4096, 16)), _DT)


def _ensemble() -> Net:
    surrogate = GeluEnsemble(columns(11, 11)).eval()
    return Net("ensemble", surrogate, (11, 64, 64, 11), 5, np.random.default_rng(0).random((4096, 11)), _DT)


def _spirals() -> Net:
    """Fit the model of the BZ case, in short, to cells on which spirals have turned."""
    case = tomllib.loads(CASE.read_text(encoding="utf-8"))
    kernel, dt = BZ(**case["kernel"]["params"]), case["run"]["dt"]
    with Grid((_EDGE, _EDGE), length=(72.0, 72.0), periodic=False, halo=kernel.halo, comm=MPI.COMM_SELF) as grid:
        state = grid.state(kernel.fields)
        kernel.start(state, grid)
        for _ in range(_STEPS):
            kernel.step(state, grid, dt, evaluate_truth)
        cells = gather(kernel.reaction, state)
    operator = kernel.reaction.bound_to(kernel.fields)
    surrogate = MLPEnsemble(operator.signature, **case["surrogate"]["params"])
    samples = Samples(cells, np.full(len(cells), dt), operator.evaluate_truth(cells, dt))
    surrogate.fit(samples, seed=0, seconds=_FIT_SECONDS)
    sizes = (surrogate.nets.weights[0].shape[1], *(weight.shape[2] for weight in surrogate.nets.weights))
    return Net("bz", surrogate.eval(), sizes, surrogate.members, cells, dt)


_NETS: dict[str, Callable[[], Net]] = {"mlp": _plain, "ensemble": _ensemble, "bz": _spirals}
