"""Training on tapes: models for the operators of recorded runs, with which other runs begin (``learning.start``)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from coupler import plugin
from coupler.config import Case
from coupler.errors import ConfigError, CouplerError, did_you_mean
from coupler.learning.registry import ModelCard
from coupler.learning.samples import SampleBatch
from coupler.learning.store import SampleStore
from coupler.learning.trainer import TrainingTask, train
from coupler.operator import Signature
from coupler.runfolder import RunFolder
from coupler.surrogate import Surrogate
from coupler.tape import Tape, operators_on_tape

# In the signature of a tape they are what its run asked for; its truth is the same whatever that was.
_TOLERANCES = ("atol", "rtol")
# So many times the samples are drawn, for the rare ones among them: this share is taken as drawn, the rest spread
# evenly over the regions of the inputs. A run's first steps are few, and what is wrong there is wrong for good.
_CHOICE, _DRAWN_ALIKE = 3, 0.5


class TapeTraining:
    """One training per operator that has a tape; checked before anything is written.

    Parameters
    ----------
    tapes : sequence of Path
        Folders of the runs that recorded them.
    case : Case
        Its surrogate, its tolerances, the controller's cap and target, and its seed.
    seconds : float or None
        Processor time per operator [s]; None trains for the surrogate's own number of epochs, the same bits every time.
    samples : int
        Most elements per operator to learn from: half of them drawn alike from all tapes, half spread over the regions
        of the inputs, so that rare ones are there.

    Raises
    ------
    ConfigError
        If the tapes of an operator are of different ones, or the case names an operator that has none.
    CouplerError
        If there is no tape, or one is damaged.
    PluginError
        If the surrogate cannot be built.
    """

    def __init__(self, tapes: Sequence[Path], case: Case, *, seconds: float | None, samples: int) -> None:
        self._case, self._seconds, self._samples = case, seconds, samples
        self._tapes: dict[str, list[Tape]] = {}
        for path in tapes:
            for name in operators_on_tape(path):
                self._tapes.setdefault(name, []).append(Tape(path, name))
        for name in case.operator:
            if name not in self._tapes:
                raise ConfigError(f'[operator.{name}]: no tape is of "{name}".{did_you_mean(name, self._tapes)}')
        self._signatures = {name: _signature(mine, case) for name, mine in self._tapes.items()}
        surrogate = plugin.load(case.surrogate.name, Surrogate)
        for signature in self._signatures.values():
            plugin.build(surrogate, case.surrogate.params, signature, key="surrogate.params")

    def run(self, folder: RunFolder) -> list[ModelCard]:
        """Train, and leave the models in a folder that a run can begin with.

        Parameters
        ----------
        folder : RunFolder
            Claimed for it.

        Returns
        -------
        list of ModelCard
            One per operator.

        Raises
        ------
        CouplerError
            If the tapes of an operator have too few elements to train and to judge a model on.

        Collective: no. Sets torch's threads to ``surrogate.threads``.
        """
        import torch  # here: what is wrong is said before seconds are spent on it

        torch.set_num_threads(self._case.surrogate.threads)
        return [self._train(name, folder) for name in self._tapes]

    def _train(self, name: str, folder: RunFolder) -> ModelCard:
        case, signature = self._case, self._signatures[name]
        samples = _joined(self._tapes[name], _CHOICE * self._samples)
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
            )
        )
        if outcome.candidate is None:
            raise CouplerError(f'The tapes of "{name}" give no model: {outcome.sentence}.')
        return outcome.candidate


def _signature(tapes: Sequence[Tape], case: Case) -> Signature:
    """Give what all tapes are of, with the case's tolerances."""
    first = tapes[0]
    for other in tapes[1:]:
        mine, its = first.signature.to_json(), other.signature.to_json()
        if differ := [key for key in mine if its[key] != mine[key] and key not in _TOLERANCES]:
            raise ConfigError(
                f'The tapes of "{first.operator}" in {first.folder} and {other.folder} differ in '
                f"{' and '.join(differ)}: a model is of one operator. Record them alike, or name only one."
            )
    section = case.operator.get(first.operator)
    return first.signature if section is None else first.signature.with_declared(atol=section.atol, rtol=section.rtol)


def _joined(tapes: Sequence[Tape], most: int) -> SampleBatch:
    """Draw from every tape in proportion.

    None is newer than another, so all are of step 0; each recorded call gets a number of its own, or elements of two
    would be taken for one.
    """
    elements, passed, drawn = sum(tape.elements for tape in tapes), 0, list[SampleBatch]()
    for tape in tapes:
        batch = tape.samples(most=most * tape.elements // max(elements, 1))
        calls, numbers = np.unique(np.stack([batch.step, batch.call]), axis=1, return_inverse=True)
        drawn.append(replace(batch, step=np.zeros_like(batch.step), call=passed + numbers.reshape(-1)))
        passed += calls.shape[1]
    return SampleBatch.join(drawn)
