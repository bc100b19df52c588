"""Training on the truth of runs: models for their operators, with which other runs begin (``learning.start``)."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from coupler import plugin
from coupler.case import Case
from coupler.errors import ConfigError, CouplerError, did_you_mean
from coupler.learning.registry import ModelCard
from coupler.learning.samples import SampleBatch
from coupler.learning.store import SampleStore
from coupler.learning.trainer import Fit, TrainingTask, fit_alone, train
from coupler.operator import Signature
from coupler.playback.kept import KeptTruth
from coupler.runfolder import RunFolder
from coupler.surrogate import Surrogate
from coupler.tape import Tape, operators_on_tape

# They are what a run asked for; its truth is the same whatever that was.
_TOLERANCES = ("atol", "rtol")
# So many times the samples are drawn, for the rare ones among them: this share is taken as drawn, the rest spread
# evenly over the regions of the inputs. A run's first steps are few, and what is wrong there is wrong for good.
_CHOICE, _DRAWN_ALIKE = 3, 0.5


class Truth(Protocol):
    """Elements of one operator of a run with their truth, on a tape or kept."""

    @property
    def operator(self) -> str:
        """Whose."""

    @property
    def folder(self) -> Path:
        """Where they are."""

    @property
    def signature(self) -> Signature:
        """The operator's."""

    @property
    def elements(self) -> int:
        """How many there are."""

    def samples(self, *, most: int) -> SampleBatch:
        """Draw so many of them, the same for everyone who asks, or give all."""


class TruthTraining:
    """One training per operator whose truth is there; checked before anything is written.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs. Of one that recorded tapes these are taken, of another what it kept: audits and fallbacks.
    case : Case
        Its surrogate, its tolerances, the controller's cap and target, and its seed.
    seconds : float or None
        Processor time per operator [s]; None trains for the surrogate's own number of epochs, to the same bits
        every time with the same number of processes.
    samples : int
        Most elements per operator to learn from, as many of each run: half of them drawn alike, half spread over the
        regions of the inputs, so that rare ones are there.
    trainers : int
        Processes that will share the trainings.

    Raises
    ------
    ConfigError
        If a run has no truth, that of an operator is of different ones, the case names an operator that has none, or
        its surrogate cannot be trained by so many processes.
    CouplerError
        If one is damaged.
    PluginError
        If the surrogate cannot be built.
    """

    def __init__(
        self, runs: Sequence[Path], case: Case, *, seconds: float | None, samples: int, trainers: int = 1
    ) -> None:
        self._case, self._seconds, self._samples = case, seconds, samples
        self._truths: dict[str, list[Truth]] = {}
        for truth in (truth for run in runs for truth in _truths(run)):
            self._truths.setdefault(truth.operator, []).append(truth)
        for name in case.operator:
            if name not in self._truths:
                raise ConfigError(f'[operator.{name}]: no run has truth of "{name}".{did_you_mean(name, self._truths)}')
        self._signatures = {name: _signature(mine, case) for name, mine in self._truths.items()}
        for candidate in self.candidates():
            _check_trainers(candidate, trainers)

    def candidates(self) -> Iterator[Surrogate]:
        """Build the surrogate of every operator, as it is before it is trained, in the order of the trainings."""
        surrogate = plugin.load(self._case.surrogate.name, Surrogate)
        for signature in self._signatures.values():
            yield plugin.build(surrogate, self._case.surrogate.params, signature, key="surrogate.params")

    def run(self, folder: RunFolder, fit: Fit = fit_alone) -> list[ModelCard]:
        """Train, and leave the models in a folder that a run can begin with; of a training that fails nothing is left.

        Parameters
        ----------
        folder : RunFolder
            Claimed for it.
        fit : callable
            Fits the surrogates; others may help.

        Returns
        -------
        list of ModelCard
            One per operator.

        Raises
        ------
        CouplerError
            If the runs have too few elements of an operator to train and to judge a model on.

        Collective: no, but for ``fit``. Sets torch's threads to ``surrogate.threads``.
        """
        import torch  # here: what is wrong is said before seconds are spent on it

        torch.set_num_threads(self._case.surrogate.threads)
        try:
            return [self._train(name, folder, fit) for name in self._truths]
        except BaseException:
            for made in (folder.samples, folder.models):
                shutil.rmtree(made, ignore_errors=True)
            folder.abandon()
            raise

    def _train(self, name: str, folder: RunFolder, fit: Fit) -> ModelCard:
        case, signature = self._case, self._signatures[name]
        samples = _joined(self._truths[name], _CHOICE * self._samples)
        SampleStore(folder.samples, name, signature).append(samples)
        outcome = train(
            TrainingTask(
                operator=name,
                surrogate=case.surrogate.name,
                params=case.surrogate.params,
                signature=signature.to_json(),
                samples=str(folder.samples),
                models=str(folder.models),
                capacity=self._samples,
                anchors=_DRAWN_ALIKE / 2,
                recent=_DRAWN_ALIKE / 2,
                regions=case.controller.regions,
                seed=case.run.seed,
                seconds=self._seconds,
                cap=case.controller.cap,
                target=case.controller.target,
                step=0,
                incumbent=None,
            ),
            fit,
        )
        if outcome.candidate is None:
            raise CouplerError(f'The truth of "{name}" gives no model: {outcome.sentence}.')
        return outcome.candidate


def _check_trainers(surrogate: Surrogate, trainers: int) -> None:
    most = surrogate.most_trainers
    if trainers > most:
        name, so_many = type(surrogate).__name__, "one process" if most == 1 else f"at most {most} processes"
        raise ConfigError(
            f"{name} is trained by {so_many} with these parameters, and this is one of {trainers}: type "
            + ("coupler train without mpirun." if most == 1 else f"mpirun -n {most} coupler train.")
        )


def _truths(run: Path) -> Sequence[Truth]:
    """Give the tapes of a run, or what it kept where it has none."""
    if found := [Tape(run, name) for name in operators_on_tape(run)] or KeptTruth.find(run):
        return found
    raise ConfigError(
        f"{run} has no truth to train on: no tape, and no samples beside a model. Name a run with output.tape = true, "
        "or a coupled one that learned."
    )


def _signature(truths: Sequence[Truth], case: Case) -> Signature:
    """Give what all truths are of, with the case's tolerances."""
    first = truths[0]
    for other in truths[1:]:
        mine, its = first.signature.to_json(), other.signature.to_json()
        if differ := [key for key in mine if its[key] != mine[key] and key not in _TOLERANCES]:
            raise ConfigError(
                f'The truths of "{first.operator}" in {first.folder} and {other.folder} differ in '
                f"{' and '.join(differ)}: a model is of one operator. Record them alike, or name only one."
            )
    section = case.operator.get(first.operator)
    return first.signature if section is None else first.signature.with_declared(atol=section.atol, rtol=section.rtol)


def _joined(truths: Sequence[Truth], most: int) -> SampleBatch:
    """Draw as many from every run, or all it has.

    None is newer than another, so all are of step 0; each call gets a number of its own, or elements of two would be
    taken for one.
    """
    passed, drawn = 0, list[SampleBatch]()
    for place, truth in enumerate(sorted(truths, key=lambda truth: truth.elements)):
        batch = truth.samples(most=(most - sum(map(len, drawn))) // (len(truths) - place))
        calls, numbers = np.unique(np.stack([batch.step, batch.call]), axis=1, return_inverse=True)
        drawn.append(replace(batch, step=np.zeros_like(batch.step), call=passed + numbers.reshape(-1)))
        passed += calls.shape[1]
    return SampleBatch.join(drawn)
