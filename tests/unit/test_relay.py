"""How batches are cut for the way to a server elsewhere, and put together there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.records import Rows
from coupler.serving.relay import cut
from coupler.serving.remote import consecutive, cut_up, reply_pieces, unpacked

ROOT = Path(__file__).resolve().parents[2]


def part(count: int, n_in: int = 3, n_out: int = 2) -> Rows:
    return Rows(np.arange(3.0 * count).reshape(count, n_in), 0.5, np.zeros((count, n_out)), np.zeros(count))


@given(counts=st.lists(st.integers(0, 40), max_size=6), most=st.integers(1, 2000))
def test_a_batch_cut_into_chunks_is_all_its_elements_in_order(counts: list[int], most: int) -> None:
    parts = [part(count) for count in counts]

    groups = list(cut(parts, most))

    pieces = [piece for group in groups for piece in group]
    assert sum(len(piece.inputs) for piece in pieces) == sum(counts)
    for piece in pieces:
        piece.mean[...] = piece.inputs[:, :2]  # written into the views, it is in the parts
    assert all(np.array_equal(whole.mean, whole.inputs[:, :2]) for whole in parts)
    row = 8 * (3 + 2 + 1)
    assert all(sum(len(piece.inputs) for piece in group) * row <= max(most, row) for group in groups)
    assert len(groups) == 1 or all(group for group in groups)


@given(elements=st.integers(0, 30_000), n_out=st.integers(1, 3))
def test_an_answer_within_a_call_has_as_many_results_as_were_announced(elements: int, n_out: int) -> None:
    values = np.arange(float(elements * (n_out + 1)))

    pieces = cut_up(values)

    assert len(pieces) + 1 == reply_pieces(elements, n_out)
    assert all(piece.nbytes < 100_000 for piece in pieces)
    mean, score = unpacked(np.concatenate(pieces), elements)
    assert np.array_equal(np.concatenate([mean.ravel(), score]), values)
    assert len(mean) == len(score) == elements


def test_parts_that_lie_together_are_found_by_their_counts() -> None:
    assert list(consecutive([2, 0, 3])) == [slice(0, 2), slice(2, 2), slice(2, 5)]


# Answers are compared bit by bit: small batches within calls, large ones in chunks through the store.
MEASURED = """
import sys
from contextlib import closing
from pathlib import Path
from benchmarks.harness.rivals.rays import RivalCluster
from benchmarks.harness.rivals.workload import Workload
from benchmarks.harness.timing import Effort
from benchmarks.objectstore import measure
workloads = [Workload(f"identity/{n}", "identity", n) for n in (1, 5000, 50_000, 300_001)]
with closing(RivalCluster()) as head:
    rows = measure(Path(sys.argv[1]), head.address, "with-ranks", workloads, Effort(rounds=1, seconds=0.0))
print(len(rows), "rows")
"""


@pytest.mark.ray
def test_batches_of_every_size_come_back_through_the_object_store(tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env=surroundings,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "8 rows" in done.stdout
