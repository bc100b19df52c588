"""What a coupled run kept of its truth: audits and fallbacks at states that its own answers led to."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coupler.learning.registry import Registry
from coupler.learning.samples import SampleBatch
from coupler.learning.store import SampleStore
from coupler.operator import Signature
from coupler.runfolder import RunFolder

_DRAWN = 0x4EE9


@dataclass(frozen=True)
class KeptTruth:
    """The samples of one operator of a coupled run.

    Parameters
    ----------
    folder : Path
        Of the run.
    operator : str
        Whose.
    signature : Signature
        As the run had it.
    """

    folder: Path
    operator: str
    signature: Signature

    @staticmethod
    def find(folder: Path) -> "list[KeptTruth]":
        """Find the operators of a run that have both samples and a model, which says what the samples are of.

        Raises
        ------
        CouplerError
            If the card of a model is damaged.

        Collective: no.
        """
        run = RunFolder(folder)
        if not (run.samples.is_dir() and run.models.is_dir()):
            return []
        registry = Registry(run.models)
        cards = [registry.card(name, registry.versions(name)[-1]) for name in registry.operators]
        found = [KeptTruth(folder, card.operator, Signature.from_json(card.signature)) for card in cards]
        return [one for one in found if not one._store.empty]

    @property
    def elements(self) -> int:
        """How many samples there are."""
        return len(self._all)

    def samples(self, *, most: int) -> SampleBatch:
        """Give so many of the samples, those with the lowest hash of (step, call, id), or all.

        Raises
        ------
        CouplerError
            If a segment is damaged.

        Collective: no.
        """
        return self._all.draw(most, purpose=_DRAWN)

    @cached_property
    def _all(self) -> SampleBatch:
        return self._store.read().samples

    @property
    def _store(self) -> SampleStore:
        return SampleStore(RunFolder(self.folder).samples, self.operator, self.signature)
