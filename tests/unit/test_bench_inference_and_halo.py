"""The benchmarks of the forward and of the halo exchange, once each and small: what is timed is not looked at here."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from mpi4py import MPI

from benchmarks import halo, inference
from benchmarks.harness import torch_forwards
from benchmarks.harness.models import GeluEnsemble, PlainMLP, columns
from benchmarks.harness.timing import Effort
from coupler.field import Field
from coupler.grid import Grid
from coupler.surrogate import Surrogate

SHORT = Effort(rounds=1, seconds=0.001, most=2)
DT = 0.1


@pytest.mark.parametrize(("make", "size"), [(PlainMLP, 16), (GeluEnsemble, 11)])
@pytest.mark.parametrize("elements", [1, 700, 5000])
def test_what_torch_is_measured_with_is_the_same_model(make: type[Surrogate], size: int, elements: int) -> None:
    surrogate = make(columns(size, size)).eval()
    inputs = np.random.default_rng(1).random((elements, size))
    expected = torch_forwards.eager(surrogate, inputs, DT)()
    others = [torch_forwards.chunked(surrogate, inputs, DT)]
    if isinstance(surrogate, GeluEnsemble):
        others.append(torch_forwards.stacked_by_func(surrogate, inputs))

    for other in others:
        answer = other()
        # Both sum the same products in single precision, in another order.
        torch.testing.assert_close(answer.mean, expected.mean, rtol=0.0, atol=1e-5)
        torch.testing.assert_close(answer.score, expected.score, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(("net", "operations"), [("mlp", 12_288), ("ensemble", 55_040)])
def test_inference_measures_the_chosen_form_all_forms_and_torch(net: str, operations: int) -> None:
    rows = inference.run(nets=[net], elements=[40], forms=["fused", "eager"], effort=SHORT)

    by_func = {"torch-func-vmap"} if net == "ensemble" else set()
    ours = {"coupler", "coupler-fused", "coupler-eager"}
    assert {row["system"] for row in rows} == ours | by_func | {"torch-eager", "torch-chunked", "gemm-limit"}
    for row in rows:
        assert row["case"] == f"{net}/40"
        assert row["threads"] == 1
        assert row["gflops"] == pytest.approx(1e-9 * operations * 40 / float(row["median_s"]))
        assert ("form" in row) == (row["system"] in ours)
        assert ("error_in_tolerances" in row) == (row["system"] != "gemm-limit")
    assert {row["form"] for row in rows if row["system"] == "coupler-fused"} == {"fused"}


def test_the_model_of_the_case_is_measured_as_the_case_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_FIT_SECONDS", 0.1)

    rows = inference.run(nets=["bz"], elements=[33], forms=[], effort=SHORT)

    assert {row["case"] for row in rows} == {"bz/33"}
    assert {row["system"] for row in rows} == {"coupler", "torch-eager", "torch-chunked", "gemm-limit"}


def test_a_system_that_differs_by_more_than_rounding_is_refused() -> None:
    net = inference.Net("mlp", PlainMLP(columns(4, 4)).eval(), (4, 64, 64, 4), 1, np.ones((3, 4)), DT)
    right = torch_forwards.eager(net.surrogate, net.inputs, DT)
    systems: dict[str, Callable[[], object]] = {
        "torch-eager": right,
        "torch-chunked": lambda: right()._replace(mean=right().mean + 1e-3),
    }

    with pytest.raises(AssertionError, match=r"torch-chunked is \S+ tolerances off"):
        inference._errors(net, systems)  # type: ignore[arg-type]


def test_measuring_leaves_torch_its_threads() -> None:
    threads = torch.get_num_threads()

    with pytest.raises(KeyError):
        inference.run(nets=["no such net"], elements=[1], forms=[], effort=SHORT)

    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
@pytest.mark.parametrize("system", halo.SYSTEMS)
def test_rivals_of_the_halo_exchange_fill_all_ghosts_on_one_rank_too(system: str, shape: tuple[int, ...]) -> None:
    with Grid(shape, comm=MPI.COMM_SELF) as grid:
        state = grid.state((Field("a"), Field("b")))
        rival = halo.SYSTEMS[system](grid, [local.array for local in state.values()])
        halo._fill(grid, state)
        with pytest.raises(AssertionError, match=f"{system} leaves wrong ghosts"):
            halo._check(grid, state, system)

        rival.exchange()

        halo._check(grid, state, system)
        rival.close()


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize("ranks", [2, 4])
def test_halo_measures_all_systems_on_ranks(ranks: int) -> None:
    measure = partial(halo.run, ranks=[ranks], effort=SHORT)

    rows = measure(blocks=[(8, 6), (4, 5, 6)], fields=[1, 2])

    cases = {f"ranks/{ranks}/{many}x{block}" for many in (1, 2) for block in ("8x6", "4x5x6")}
    systems = {"coupler", "memory-copy", *halo.SYSTEMS}
    assert {(row["case"], row["system"]) for row in rows} == {(case, system) for case in cases for system in systems}
    sizes = {row["case"]: row["bytes"] for row in rows}
    assert sizes[f"ranks/{ranks}/2x8x6"] == 2 * sizes[f"ranks/{ranks}/1x8x6"] == 2 * 8 * 2 * (8 + 6)
