"""Inheritance: the models that another run, or a training on tapes, has left, with which a run begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import ConfigError
from coupler.operator import Signature
from coupler.runfolder import RunFolder
from coupler.summary import read_summary

if TYPE_CHECKING:
    from coupler.learning.registry import ModelCard, Registry


@dataclass(frozen=True)
class Inheritance:
    """Versions to begin with.

    Parameters
    ----------
    folder : Path
        Of the run, or the training, that left them.
    versions : mapping of operator name to int
        Which version of whose model; operators that are not named begin without one.
    digests : mapping of operator name to str
        SHA-256 of their weights.
    """

    folder: Path
    versions: Mapping[str, int]
    digests: Mapping[str, str]

    @staticmethod
    def read(folder: Path, signatures: Mapping[str, Signature]) -> "Inheritance":
        """Find the models for a run's operators: those that answered last in a finished run, otherwise the newest.

        Parameters
        ----------
        folder : Path
            ``learning.start``.
        signatures : mapping of operator name to Signature
            The run's operators.

        Raises
        ------
        ConfigError
            If there is no such folder, no model of any of these operators in it, or one for another signature.
        CouplerError
            If a file of a model is missing or damaged.

        Collective: no.
        """
        # Imported here: a run without models needs no torch.
        from coupler.learning.registry import Registry

        models = RunFolder(folder).models
        if not models.is_dir():
            raise ConfigError(
                f"learning.start = {folder}: there is no folder {models}. Name the folder of a run that had models, or "
                "of `coupler train`."
            )
        registry = Registry(models)
        versions = {name: version for name in signatures if (version := _last(folder, registry, name))}
        if not versions:
            raise ConfigError(
                f"learning.start = {folder}: it has no model of {' or '.join(signatures)}. Name another folder, or "
                "leave the key out to begin without a model."
            )
        cards = {name: registry.card(name, version) for name, version in versions.items()}
        for name, card in cards.items():
            _check(card, signatures[name], folder)
            registry.check(card)
        return Inheritance(folder, versions, {name: card.sha256 for name, card in cards.items()})

    def copy_models(self, registry: "Registry") -> "dict[str, ModelCard]":
        """Put copies into the registry of the run that begins; give their cards there by operator."""
        from coupler.learning.registry import Registry

        source = Registry(RunFolder(self.folder).models)
        return {name: registry.adopt(source.card(name, version), source) for name, version in self.versions.items()}


def _last(folder: Path, registry: "Registry", operator: str) -> int:
    """Give the version that answered last, the newest where nobody can say; 0 if there is none."""
    try:
        answered = [one.version for one in read_summary(RunFolder(folder).summary).models if one.operator == operator]
    except (OSError, ValueError):  # it goes on, was cut short, or is no run
        answered = []
    return answered[-1] if answered else max(registry.versions(operator), default=0)


def _check(card: "ModelCard", signature: Signature, folder: Path) -> None:
    wanted = signature.to_json()
    if differ := [key for key in wanted if card.signature.get(key) != wanted[key]]:
        raise ConfigError(
            f'learning.start = {folder}: the model of "{card.operator}" there was trained for an operator with other '
            f"{' and '.join(differ)}. Give this one the same, or train a model for it: coupler train."
        )
