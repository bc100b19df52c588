"""The contract of a surrogate: what server, trainer and registry rely on.

It is tried on a small synthetic operator: two species that turn into each other, at a rate that a third column sets;
or, if it is for tiles and refuses that, on two fields that spread and turn into each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from coupler.check.lines import CheckLine, Line, go_through, same_bits
from coupler.errors import PluginError
from coupler.field import Field
from coupler.operator import Signature
from coupler.plugin import build
from coupler.records import Rows
from coupler.serving.forms import ALLOWED_DIFFERENCE
from coupler.serving.predictor import CHUNK_ROWS, Predictor
from coupler.surrogate import Prediction, Samples, Surrogate
from coupler.team import ALONE
from coupler.tile import Tile, Tiled

_SAMPLES = 400
_SEED = 7
_ALONE = 4
_SPECIES = (Field("a", bounds=(0, None)), Field("b", bounds=(0, None)))
_CELLS = Signature(
    inputs=(*_SPECIES, Field("rate", bounds=(0, None))),
    outputs=_SPECIES,
    atol=(1e-3, 1e-3),
    rtol=(1e-3, 1e-3),
    conserved={"mass": {"a": 1.0, "b": 1.0}},
)
_TILES = Signature.of(_SPECIES, _SPECIES, atol=1e-2, rtol=1e-2, conserved={}, tile=Tile((6, 5), halo=4))


@dataclass(frozen=True)
class SurrogateCase:
    """A surrogate class, its parameters and samples to learn from.

    Parameters
    ----------
    plugin : type
        The class.
    params : mapping
        Its keyword arguments.
    signature : Signature
        The operator it is tried on.
    """

    plugin: type[Surrogate]
    params: Mapping[str, object]
    signature: Signature = _CELLS

    @cached_property
    def samples(self) -> Samples:
        """Inputs over two decades, several time steps, and the truth."""
        generator = np.random.default_rng(_SEED)
        inputs = np.exp(generator.uniform(-2.3, 2.3, (_SAMPLES, len(self.signature.inputs))))
        dt = generator.choice([0.05, 0.1, 0.2], _SAMPLES)
        tiled = self.signature.tiled
        return Samples(inputs, dt, _turned(inputs, dt) if tiled is None else _spread(tiled, inputs, dt))

    @cached_property
    def used_samples(self) -> Samples:
        """The very samples that :attr:`fitted` was trained on, as it left them."""
        return self.copy_of_samples()

    @cached_property
    def fitted(self) -> Surrogate:
        """One trained model, ready to answer."""
        return self.train(self.used_samples)

    def built(self) -> Surrogate:
        """Build the class as the server does."""
        return build(self.plugin, self.params, self.signature, key="surrogate.params")

    def train(self, samples: Samples) -> Surrogate:
        """Build and train a model, with a fixed number of epochs."""
        surrogate = self.built()
        surrogate.fit(samples, seed=_SEED)
        return surrogate.eval()

    def copy_of_samples(self) -> Samples:
        """Give samples that a fit may spoil."""
        return self.samples.take(np.arange(_SAMPLES))

    @torch.inference_mode()
    def prediction(self) -> Prediction:
        """Ask the trained model about all samples at once."""
        samples = self.copy_of_samples()
        return self.fitted.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt))

    def answer(self, surrogate: Surrogate, rows: NDArray[np.intp], form: str = "eager") -> NDArray[np.float64]:
        """Ask a model as the server asks, in one of its forms: (n, n_out + 1), the score in the last column."""
        n_out = len(self.signature.outputs)
        predictor = Predictor(len(self.signature.inputs), n_out, torch.device("cpu"), form=form, timed=False)
        predictor.load(1, surrogate)
        asked, answers = self.samples.take(rows), np.empty((len(rows), n_out + 1))
        order = np.argsort(asked.dt, kind="stable")
        cuts = np.flatnonzero(np.diff(asked.dt[order])) + 1
        parts = []
        for part in np.split(order, cuts):
            mean, score = np.empty((len(part), n_out)), np.empty(len(part))
            parts.append(Rows(asked.inputs[part], float(asked.dt[part[0]]), mean, score))
        predictor.predict(parts, 1)
        answers[order] = np.concatenate([np.column_stack((part.mean, part.score)) for part in parts])
        return answers


def _turned(inputs: NDArray[np.float64], dt: NDArray[np.float64]) -> NDArray[np.float64]:
    flow = -0.5 * np.expm1(-2.0 * inputs[:, 2] * dt) * (inputs[:, 0] - inputs[:, 1])
    return np.column_stack((inputs[:, 0] - flow, inputs[:, 1] + flow))


def _spread(tiled: Tiled, inputs: NDArray[np.float64], dt: NDArray[np.float64]) -> NDArray[np.float64]:
    blocks, halo = tiled.input_blocks(inputs), tiled.tile.halo
    around = sum(np.roll(blocks, step, axis) for step in (-1, 1) for axis in (2, 3)) / 4.0
    after = blocks + dt[:, None, None, None] * (around - blocks + blocks[:, ::-1])
    return after[:, :, halo:-halo, halo:-halo].reshape(len(inputs), -1)


def check_surrogate(plugin: type[Surrogate], params: Mapping[str, object]) -> list[CheckLine]:
    """Go through the contract of a surrogate, on one core of the CPU.

    Collective: no.
    """
    cells, tiles = SurrogateCase(plugin, params), SurrogateCase(plugin, params, _TILES)
    case = tiles if _refuses(cells) and not _refuses(tiles) else cells
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as servers do: faster on such small batches, and much so on a full node
    built = go_through((_BUILDING,), case)
    lines = built + go_through(_LINES, case) if built[0].passed else built
    torch.set_num_threads(threads)
    return lines


def _refuses(case: SurrogateCase) -> bool:
    try:
        case.built()
    except PluginError:
        return True
    return False


def _builds(case: SurrogateCase) -> str:
    case.built()
    return ""


def _fits(case: SurrogateCase) -> str:
    # Kept by the case, so that the other lines do not train again.
    assert isinstance(case.fitted, Surrogate)
    return ""


def _predicts_what_is_declared(case: SurrogateCase) -> str:
    prediction = case.prediction()
    for name, value, expected in (
        ("mean", prediction.mean, (_SAMPLES, len(case.signature.outputs))),
        ("score", prediction.score, (_SAMPLES,)),
    ):
        if tuple(value.shape) != expected:
            return f"{name} has shape {tuple(value.shape)} instead of {expected}."
        if value.dtype != torch.float64:
            return f"{name} is {value.dtype}: return float64, compute in whatever you like."
    return ""


def _is_finite(case: SurrogateCase) -> str:
    wrong = [name for name, value in case.prediction()._asdict().items() if not torch.isfinite(value).all()]
    return f"{' and '.join(wrong)} not finite for samples it was trained on." if wrong else ""


def _score_is_not_negative(case: SurrogateCase) -> str:
    lowest = float(case.prediction().score.min())
    return f"the lowest score is {lowest:g}: 0 means no doubt, 1.0 about at tolerance." if lowest < 0 else ""


def _leaves_its_inputs(case: SurrogateCase) -> str:
    surrogate, samples = case.fitted, case.copy_of_samples()
    if not _same_samples(case.used_samples, case.samples):
        return "fit wrote into its samples, which later trainings use again: work on a copy."
    with torch.inference_mode():
        surrogate.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt))
    return "" if _same_samples(samples, case.samples) else "predict wrote into its inputs: work on a copy."


def _is_repeatable(case: SurrogateCase) -> str:
    one, other = case.prediction(), case.prediction()
    if same_bits(one.mean.numpy(), other.mean.numpy()) and same_bits(one.score.numpy(), other.score.numpy()):
        return ""
    return "the same inputs gave other bits the second time: nothing may be drawn or remembered in predict."


def _rows_are_independent(case: SurrogateCase) -> str:
    return _company_complaint(case, "eager", "no statistics over the batch.")


def _fused_answers_alike(case: SurrogateCase) -> str:
    if case.fitted.fused() is None:
        return ""
    everything = np.arange(_SAMPLES)
    eager, fused = (case.answer(case.fitted, everything, form) for form in ("eager", "fused"))
    doubt = np.maximum(eager[:, -1], 1.0)
    difference = np.maximum(case.signature.error(fused[:, :-1], eager[:, :-1]), np.abs(fused - eager)[:, -1]) / doubt
    if not difference.max() <= ALLOWED_DIFFERENCE:
        return (
            f"it is up to {difference.max():.2g} tolerances from predict, where {ALLOWED_DIFFERENCE:g} is allowed: it "
            "must do the same arithmetic."
        )
    return _company_complaint(case, "fused", "nothing may pass from one element to another.")


def _company_complaint(case: SurrogateCase, form: str, advice: str) -> str:
    """Say how an answer depends on other rows; empty if it does not."""
    everything = np.arange(_SAMPLES)
    together = case.answer(case.fitted, everything, form)
    advice = f"row i of an answer must depend on row i of the inputs only: {advice}"
    for row in np.linspace(0, _SAMPLES - 1, _ALONE, dtype=np.intp):
        if not same_bits(case.answer(case.fitted, np.array([row]), form), together[row : row + 1]):
            return f"element {row} alone gets another answer than among {_SAMPLES}: {advice}"
    # Longer than a chunk, in another order: the server puts the questions of several ranks together.
    rows = np.random.default_rng(_SEED).choice(everything, 2 * CHUNK_ROWS)
    if not same_bits(case.answer(case.fitted, rows, form), together[rows]):
        return f"elements in other company get other answers: {advice}"
    return ""


def _survives_saving(case: SurrogateCase) -> str:
    again, everything = case.built(), np.arange(_SAMPLES)
    again.load_state_dict(load(_saved(case.fitted)))
    if same_bits(case.answer(case.fitted, everything), case.answer(again, everything)):
        return ""
    return "saved and loaded, it answers differently: all that predict uses must be parameters and buffers."


def _fits_repeatably(case: SurrogateCase) -> str:
    if _saved(case.train(case.copy_of_samples())) == _saved(case.fitted):
        return ""
    return "the same samples and seed gave other weights: draw everything random from the seed."


def _one_of_a_team_learns_alike(case: SurrogateCase) -> str:
    surrogate = case.built()
    if surrogate.most_trainers == 1:
        return ""
    surrogate.fit_together(case.copy_of_samples(), team=ALONE, seed=_SEED)
    if _saved(surrogate) == _saved(case.fitted):
        return ""
    return "fit_together with a team of one gave other weights than fit: both must teach the same."


def _saved(surrogate: Surrogate) -> bytes:
    return save({name: value.contiguous() for name, value in surrogate.state_dict().items()})


def _same_samples(one: Samples, other: Samples) -> bool:
    return same_bits(one.inputs, other.inputs) and same_bits(one.dt, other.dt) and same_bits(one.truth, other.truth)


_BUILDING = Line("it is built as Class(signature, **params)", _builds)
_LINES = (
    Line(f"fit learns from {_SAMPLES} samples", _fits),
    Line("predict returns mean (n, n_out) and score (n,), float64", _predicts_what_is_declared, needs=(_fits,)),
    Line("fit and predict leave their inputs as they are", _leaves_its_inputs, needs=(_fits,)),
    Line("predict is bitwise repeatable", _is_repeatable, needs=(_predicts_what_is_declared,)),
    Line("mean and score are finite", _is_finite, needs=(_predicts_what_is_declared,)),
    Line("the score is not negative", _score_is_not_negative, needs=(_predicts_what_is_declared,)),
    Line(
        "an answer depends on its own row only: bitwise the same alone and in any company",
        _rows_are_independent,
        needs=(_predicts_what_is_declared, _is_repeatable),
    ),
    Line(
        "its fused form, if it has one, answers as predict does, bitwise the same alone and in any company",
        _fused_answers_alike,
        needs=(_predicts_what_is_declared, _is_repeatable, _rows_are_independent),
    ),
    Line("saved as safetensors and loaded again it gives the same bits", _survives_saving, needs=(_is_repeatable,)),
    Line("the same samples and seed give the same weights, bitwise", _fits_repeatably, needs=(_fits,)),
    Line(
        "if several processes can train it, one alone learns what fit does, bitwise",
        _one_of_a_team_learns_alike,
        needs=(_fits_repeatably,),
    ),
)
