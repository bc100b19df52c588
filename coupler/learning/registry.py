"""Versions of models on disk: weights and introduction as safetensors and a card as JSON, never a pickle."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_as_bytes

from coupler import plugin
from coupler.atomic import creating, replacing
from coupler.errors import CouplerError, did_you_mean
from coupler.learning.introduction import ModelIntroduction
from coupler.operator import Signature
from coupler.surrogate import Surrogate

_CARD = re.compile(r"(.+)-v(\d{4,})\.json")


class ModelCard(BaseModel):
    """What is known of one version of a model.

    Parameters
    ----------
    version : int
        Counts from 1 per operator.
    operator : str
        Operator name.
    surrogate, params : str, mapping
        Plug-in name of the class and its keyword arguments.
    signature : mapping
        :meth:`Signature.to_json` of the operator it was trained for.
    step : int
        Time step at which its training began.
    samples : int
        Samples it was trained on, without those held out.
    range_lower, range_upper : tuple of float
        Per input, the range it was trained on; outside it must not answer.
    range_dt : (float, float) or None
        Shortest and longest time step it was trained on; None in cards from before this was noted.
    threshold : float
        First threshold of the score.
    holdout_loss, holdout_accepted : float
        Mean capped error of all held-out elements, and the share of them that the threshold accepts.
    anchor_loss : float or None
        Mean capped error of the held-out elements from the start of the run, the same ones for every version; None
        where there were none, and in cards from before they were kept.
    seconds : float
        Training time [s].
    sha256 : str
        Of the file of weights.
    introduction : str or None
        The sha256 of what was written beside the weights, a :class:`ModelIntroduction`; None if nothing was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: int
    operator: str
    surrogate: str
    params: dict[str, Any]
    signature: dict[str, Any]
    step: int
    samples: int
    range_lower: tuple[float, ...]
    range_upper: tuple[float, ...]
    range_dt: tuple[float, float] | None = None
    threshold: float
    holdout_loss: float
    holdout_accepted: float
    anchor_loss: float | None = None
    seconds: float
    sha256: str
    introduction: str | None = None


class Registry:
    """The models of a run, ``NAME-v0001.safetensors``, ``.introduction.safetensors``, ``.json`` and ``.form``.

    Parameters
    ----------
    folder : Path
        The run's ``models`` folder; made if missing. One process registers, any may read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def register(
        self, surrogate: Surrogate, facts: Mapping[str, Any], introduction: ModelIntroduction | None = None
    ) -> ModelCard:
        """Write a surrogate as the next version of its operator.

        The same weights from the same step again are not a new version: a resumed run repeats its trainings.

        Parameters
        ----------
        surrogate : Surrogate
            The trained module.
        facts : mapping
            The fields of :class:`ModelCard` except version, signature, sha256 and introduction.
        introduction : ModelIntroduction, optional
            What is known of it beside that.

        Returns
        -------
        ModelCard

        Collective: no; one process of the run calls it.
        """
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in surrogate.state_dict().items()}
        weights, known = tensors_as_bytes(state), None if introduction is None else introduction.to_bytes()
        versions = self.versions(facts["operator"])
        card = ModelCard(
            version=max(versions, default=0) + 1,
            signature=surrogate.signature.to_json(),
            sha256=hashlib.sha256(weights).hexdigest(),
            introduction=None if known is None else hashlib.sha256(known).hexdigest(),
            **facts,
        )
        for earlier in (self.card(card.operator, version) for version in versions):
            if (earlier.sha256, earlier.step) == (card.sha256, card.step):
                return earlier
        self._write(card, weights, known)
        return card

    def adopt(self, card: ModelCard, source: "Registry") -> ModelCard:
        """Copy a version of another registry, weights and introduction, as the next version here, of step 0.

        Parameters
        ----------
        card : ModelCard
            Of the version there.
        source : Registry
            Where it is.

        Returns
        -------
        ModelCard
            Of the version here.

        Raises
        ------
        CouplerError
            If a file of it is missing, or is not the one its card names.

        Collective: no; one process of the run calls it.
        """
        adopted = card.model_copy(update={"version": max(self.versions(card.operator), default=0) + 1, "step": 0})
        weights, known = source._weights(card), source._introduction(card)
        self._write(adopted, weights, known)
        return adopted

    def forget_after(self, operator: str, version: int) -> None:
        """Delete the versions after one: a run that goes on from before them makes them again, or others.

        Killed in between, it leaves weights without a card, which are no version.

        Collective: no.
        """
        for later in reversed([one for one in self.versions(operator) if one > version]):
            self._card_path(operator, later).unlink(missing_ok=True)
            for file in self._folder.glob(f"{operator}-v{later:04d}.*"):
                file.unlink(missing_ok=True)

    @property
    def operators(self) -> list[str]:
        """The names of the operators that have a model here, sorted."""
        return sorted({name for name, _ in self._cards()})

    def versions(self, operator: str) -> list[int]:
        """List the versions of an operator's model, oldest first."""
        return sorted(version for name, version in self._cards() if name == operator)

    def card(self, operator: str, version: int) -> ModelCard:
        """Read the card of a version.

        Raises
        ------
        CouplerError
            If there is no such version or its card is damaged.
        """
        path = self._card_path(operator, version)
        if not path.is_file():
            known = did_you_mean(str(version), (str(item) for item in self.versions(operator)))
            raise CouplerError(
                f'There is no version {version} of the model of "{operator}": {path} does not exist.{known}'
            )
        try:
            return ModelCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:  # pydantic's and json's errors are ValueErrors
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise CouplerError(
                f"The model card {path} is damaged ({said}), so nobody can say what the weights beside it are. "
                "Restore both files, or delete both."
            ) from error

    def load(self, card: ModelCard) -> Surrogate:
        """Build a version's surrogate and give it its weights.

        Returns
        -------
        Surrogate
            On the CPU.

        Raises
        ------
        CouplerError
            If the weights are missing, are not those the card names, or do not fit the surrogate.
        PluginError
            If the surrogate's class cannot be imported or built.
        """
        path, weights = self._weights_path(card), self._weights(card)
        found = plugin.load(card.surrogate, Surrogate)
        surrogate = plugin.build(found, card.params, Signature.from_json(card.signature), key="surrogate.params")
        try:
            surrogate.load_state_dict(read_tensors(weights))
        except (SafetensorError, RuntimeError) as error:
            raise CouplerError(
                f"The weights {path} do not fit {card.surrogate} with the parameters of their card: {error}. The class "
                "has changed since they were trained; use its old version, or train again."
            ) from error
        return surrogate

    def introduction(self, card: ModelCard) -> ModelIntroduction:
        """Read what is known of a version beside its card.

        Returns
        -------
        ModelIntroduction
            With no held-out answers and no regions where the card names none.

        Raises
        ------
        CouplerError
            If the file is missing or is not the one the card names.
        """
        n_in, content = len(Signature.from_json(card.signature).inputs), self._introduction(card)
        if content is None:
            return ModelIntroduction.empty(n_in)
        try:
            found = ModelIntroduction.from_bytes(content)
            if len(found.regions.scale) != n_in:
                raise ValueError(f"it is of {len(found.regions.scale)} inputs, the operator has {n_in}")
        except ValueError as error:
            raise CouplerError(
                f"The introduction {self._introduction_path(card)} cannot be understood ({error}), so nobody knows "
                f"what version {card.version} was judged on. Restore it, or delete its card to forget the version."
            ) from error
        return found

    def check(self, card: ModelCard) -> None:
        """See to it that all files of a version are there, and are those its card names.

        Raises
        ------
        CouplerError
            If not.
        """
        self._weights(card)
        self.introduction(card)

    def agree_on_form(self, card: ModelCard, form: str) -> str:
        """Say in which form a version answers, which is the same wherever it is loaded: that of whoever asks first.

        Forms differ in the last bits, and which is the fastest hangs on a clock; with one form for all, what a run
        did can be done again.

        Parameters
        ----------
        card : ModelCard
            The version.
        form : str
            What this process would run it in.

        Returns
        -------
        str
            What all run it in.

        Collective: no; any number of processes may ask at the same time.
        """
        path = self._card_path(card.operator, card.version).with_suffix(".form")
        with creating(path) as temporary:
            temporary.write_text(form + "\n", encoding="utf-8")
        return path.read_text(encoding="utf-8").strip()

    def form(self, card: ModelCard) -> str | None:
        """Give the form that was agreed on for a version; None before anybody loaded it."""
        path = self._card_path(card.operator, card.version).with_suffix(".form")
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def _cards(self) -> list[tuple[str, int]]:
        matches = (_CARD.fullmatch(path.name) for path in self._folder.iterdir())
        return [(match[1], int(match[2])) for match in matches if match]

    def _write(self, card: ModelCard, weights: bytes, known: bytes | None) -> None:
        # The card is written last: a version exists when its card does.
        with replacing(self._weights_path(card)) as temporary:
            temporary.write_bytes(weights)
        if known is not None:
            with replacing(self._introduction_path(card)) as temporary:
                temporary.write_bytes(known)
        with replacing(self._card_path(card.operator, card.version)) as temporary:
            temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _introduction(self, card: ModelCard) -> bytes | None:
        if card.introduction is None:
            return None
        purpose = _Purpose("introduction", f"nobody knows what version {card.version} was judged on")
        return _read_checked(self._introduction_path(card), card.introduction, purpose)

    def _weights(self, card: ModelCard) -> bytes:
        cannot = f"version {card.version} cannot answer"
        return _read_checked(self._weights_path(card), card.sha256, _Purpose("weights", cannot))

    def _card_path(self, operator: str, version: int) -> Path:
        return self._folder / f"{operator}-v{version:04d}.json"

    def _weights_path(self, card: ModelCard) -> Path:
        return self._card_path(card.operator, card.version).with_suffix(".safetensors")

    def _introduction_path(self, card: ModelCard) -> Path:
        return self._card_path(card.operator, card.version).with_suffix(".introduction.safetensors")


@dataclass(frozen=True)
class _Purpose:
    """What a file is, and what cannot be without it."""

    name: str
    loss: str


def _read_checked(path: Path, sha256: str, purpose: _Purpose) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CouplerError(
            f"The {purpose.name} {path} cannot be read ({error.strerror}), so {purpose.loss}. "
            "Restore the file, or delete its card to forget the version."
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CouplerError(
            f"The {purpose.name} {path} is not what was registered: its sha256 differs from the card's, so "
            f"{purpose.loss}. Restore the file, or delete it and its card."
        )
    return content
