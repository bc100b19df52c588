"""Deterministic learning: the whole loop, models included, is the same bits on any ranks and by either transport."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Couple, RunFiles

pytestmark = [pytest.mark.e2e, pytest.mark.ray]


@pytest.fixture(scope="module")
def reference(couple: "Couple") -> "RunFiles":
    return couple("bz.toml", 2)


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [(1, ("exchange.transport=inprocess",)), (4, ())],
    ids=["one rank that asks itself", "four ranks that ask a server"],
)
def test_a_learning_run_is_the_same_bits(
    couple: "Couple", reference: "RunFiles", ranks: int, settings: tuple[str, ...]
) -> None:
    run = couple("bz.toml", ranks, *settings)

    assert run.summary.ranks == ranks
    assert run.summary.models == reference.summary.models
    assert len(run.summary.models) >= 2
    assert run.summary.decisions == reference.summary.decisions
    assert run.summary.reasons == reference.summary.reasons
    assert run.summary.certificate == reference.summary.certificate
    assert run.summary.state_sha256 == reference.summary.state_sha256
