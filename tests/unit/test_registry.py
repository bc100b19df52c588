"""Versions of models on disk: what was registered is what is loaded, or there is an error that names the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coupler.controller.policies import HeldOut
from coupler.controller.regions import Regions
from coupler.errors import CouplerError, PluginError
from coupler.field import Field
from coupler.learning.introduction import ModelIntroduction
from coupler.learning.registry import ModelCard, Registry
from coupler.learning.rounds import RoundFolder, RoundOutcome
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.operator import Signature

PARAMS: dict[str, Any] = {"members": 2, "width": 8, "depth": 1}
SIGNATURE = Signature(
    inputs=(Field("u", bounds=(0, None)),), outputs=(Field("u", bounds=(0, None)),), atol=(1e-6,), rtol=(1e-3,)
)


def _surrogate(seed: int = 0) -> MLPEnsemble:
    surrogate = MLPEnsemble(SIGNATURE, **PARAMS)
    generator = torch.Generator().manual_seed(seed)
    for weight in surrogate.nets.weights:
        torch.nn.init.normal_(weight, generator=generator)
    return surrogate


def _facts(**changes: Any) -> dict[str, Any]:
    facts = {
        "operator": "reaction",
        "surrogate": "coupler.models.mlp_ensemble:MLPEnsemble",
        "params": PARAMS,
        "step": 10,
        "samples": 900,
        "range_lower": (0.0,),
        "range_upper": (1.0,),
        "threshold": 0.7,
        "holdout_loss": 0.01,
        "holdout_accepted": 0.9,
        "seconds": 3.5,
    }
    return facts | changes


def _registered(folder: Path) -> ModelCard:
    return Registry(folder).register(_surrogate(), _facts())


def test_a_registered_model_answers_the_same_when_loaded(tmp_path: Path) -> None:
    card = _registered(tmp_path)
    inputs, dt = torch.rand(20, 1, dtype=torch.float64), torch.ones(20, dtype=torch.float64)

    loaded = Registry(tmp_path).load(Registry(tmp_path).card("reaction", 1))

    assert torch.equal(loaded.predict(inputs, dt).mean, _surrogate().predict(inputs, dt).mean)
    assert card == Registry(tmp_path).card("reaction", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reaction-v0001.json", "reaction-v0001.safetensors"]


def test_all_run_a_version_in_the_form_of_whoever_asked_first(tmp_path: Path) -> None:
    card = _registered(tmp_path)
    assert Registry(tmp_path).form(card) is None

    agreed = [Registry(tmp_path).agree_on_form(card, form) for form in ("fused", "eager")]

    assert agreed == ["fused", "fused"]
    assert Registry(tmp_path).form(card) == "fused"
    assert Registry(tmp_path).versions("reaction") == [1]


def test_versions_count_from_one_per_operator(tmp_path: Path) -> None:
    registry = Registry(tmp_path)

    registry.register(_surrogate(0), _facts())
    registry.register(_surrogate(1), _facts(step=20))
    registry.register(_surrogate(2), _facts(operator="melting"))

    assert registry.versions("reaction") == [1, 2]
    assert registry.versions("melting") == [1]
    assert registry.versions("unheard") == []


def test_the_same_weights_of_the_same_step_are_no_new_version(tmp_path: Path) -> None:
    card = _registered(tmp_path)

    again = Registry(tmp_path).register(_surrogate(), _facts(seconds=9.0))

    assert again == card
    assert Registry(tmp_path).versions("reaction") == [1]


def test_weights_that_changed_on_disk_are_refused(tmp_path: Path) -> None:
    card = _registered(tmp_path)
    path = tmp_path / "reaction-v0001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))

    with pytest.raises(CouplerError, match=r"reaction-v0001\.safetensors.*sha256"):
        Registry(tmp_path).load(card)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    card = _registered(tmp_path)
    (tmp_path / "reaction-v0001.safetensors").unlink()

    with pytest.raises(CouplerError, match=r"reaction-v0001\.safetensors"):
        Registry(tmp_path).load(card)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}'])
def test_a_damaged_card_is_named(tmp_path: Path, text: str) -> None:
    _registered(tmp_path)
    (tmp_path / "reaction-v0001.json").write_text(text)

    with pytest.raises(CouplerError, match=r"reaction-v0001\.json"):
        Registry(tmp_path).card("reaction", 1)


def test_a_version_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    _registered(tmp_path)

    with pytest.raises(CouplerError, match="no version 2"):
        Registry(tmp_path).card("reaction", 2)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    card = _registered(tmp_path)

    with pytest.raises(CouplerError, match="do not fit"):
        Registry(tmp_path).load(card.model_copy(update={"params": PARAMS | {"width": 9}}))


def test_a_card_that_names_no_surrogate_is_refused(tmp_path: Path) -> None:
    card = _registered(tmp_path)

    with pytest.raises(PluginError, match="not a Surrogate"):
        Registry(tmp_path).load(card.model_copy(update={"surrogate": "json:JSONDecoder"}))


def test_weights_without_a_card_are_no_version(tmp_path: Path) -> None:
    _registered(tmp_path)
    (tmp_path / "reaction-v0001.json").unlink()

    assert Registry(tmp_path).versions("reaction") == []
    assert Registry(tmp_path).register(_surrogate(), _facts()).version == 1


def test_a_card_is_plain_json(tmp_path: Path) -> None:
    card = _registered(tmp_path)

    data = json.loads((tmp_path / "reaction-v0001.json").read_text())

    assert Signature.from_json(data["signature"]) == SIGNATURE
    assert data["sha256"] == card.sha256


def _introduction(rows: int = 5, regions: int = 3) -> ModelIntroduction:
    random = np.random.default_rng(0)
    return ModelIntroduction(
        HeldOut(random.random((rows, 1)), random.random(rows), random.random(rows)),
        Regions(random.random((regions, 1)), np.array([2.0])),
    )


@pytest.mark.parametrize(("rows", "regions"), [(5, 3), (1, 1), (0, 0)])
def test_an_introduction_is_read_again_bit_by_bit(tmp_path: Path, rows: int, regions: int) -> None:
    told = _introduction(rows, regions)

    card = Registry(tmp_path).register(_surrogate(), _facts(), told)
    known = Registry(tmp_path).introduction(Registry(tmp_path).card("reaction", 1))

    assert (tmp_path / "reaction-v0001.introduction.safetensors").is_file()
    assert card.introduction is not None
    assert Registry(tmp_path).versions("reaction") == [1]
    for one, other in zip((*told.held_out, *told.regions), (*known.held_out, *known.regions), strict=True):
        assert one.dtype == other.dtype == np.float64
        np.testing.assert_array_equal(one, other)


def test_of_a_card_without_introduction_nothing_is_known(tmp_path: Path) -> None:
    card = _registered(tmp_path)

    known = Registry(tmp_path).introduction(card)

    assert known.held_out.inputs.shape == (0, 1)
    assert len(known.held_out.score) == len(known.held_out.error) == 0
    assert known.regions.centres.shape == (0, 1)


def test_a_card_from_before_there_were_introductions_is_read(tmp_path: Path) -> None:
    card = _registered(tmp_path)
    path = tmp_path / "reaction-v0001.json"
    data = json.loads(path.read_text())
    del data["introduction"], data["anchor_loss"]
    path.write_text(json.dumps(data))

    assert Registry(tmp_path).card("reaction", 1) == card


@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated"])
def test_a_missing_or_damaged_introduction_is_named(tmp_path: Path, damage: str) -> None:
    card = Registry(tmp_path).register(_surrogate(), _facts(), _introduction())
    path = tmp_path / "reaction-v0001.introduction.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content if damage == "flipped" else content[:20]))
    if damage == "missing":
        path.unlink()

    with pytest.raises(CouplerError, match=r"reaction-v0001\.introduction\.safetensors.*judged on"):
        Registry(tmp_path).introduction(card)


@pytest.mark.parametrize(
    "told",
    [
        ModelIntroduction(HeldOut(np.ones((2, 1)), np.ones(3), np.ones(2)), Regions.none(1)),
        ModelIntroduction(HeldOut(np.ones((2, 1)), np.ones(2), np.ones(2)), Regions.none(2)),
        ModelIntroduction.empty(2),
    ],
    ids=["lengths differ", "columns differ", "another operator"],
)
def test_an_introduction_that_does_not_fit_is_named(tmp_path: Path, told: ModelIntroduction) -> None:
    card = Registry(tmp_path).register(_surrogate(), _facts(), told)

    with pytest.raises(CouplerError, match="cannot be understood"):
        Registry(tmp_path).introduction(card)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_bytes_that_are_no_introduction_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="eader"):
        ModelIntroduction.from_bytes(content)


def test_versions_after_one_are_forgotten(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for seed in range(3):
        registry.register(_surrogate(seed), _facts(step=seed))
    other = registry.register(_surrogate(), _facts(operator="melting"))

    registry.forget_after("reaction", 1)

    assert registry.versions("reaction") == [1]
    assert registry.versions("melting") == [other.version]
    assert registry.register(_surrogate(5), _facts(step=9)).version == 2


def test_rounds_from_one_on_are_forgotten(tmp_path: Path) -> None:
    rounds = RoundFolder(tmp_path, "reaction")
    for number in (1, 2, 3):
        rounds.publish(number, RoundOutcome(candidate=number, sentence="trained"))

    rounds.forget_from(2)

    assert [rounds.published(number) for number in (1, 2, 3)] == [True, False, False]
