"""Files as an accident or an enemy leaves them: every reader reads them, or says one sentence, and soon.

A reader is one entry of ``READERS``: how its files are written, and how they are read. What is asked of all of them is
in the three tests below.
"""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coupler.config import read_case
from coupler.errors import CouplerError
from coupler.field import Field
from coupler.kernels.mechanism import read_mechanism
from coupler.kernels.mechanism_file import SHIPPED, document_of
from coupler.learning.registry import Registry
from coupler.ledger import TABLES, Ledger, LedgerFile
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.operator import Signature

HEAT = Path(__file__).parents[1] / "e2e" / "heat.toml"
# What a reader may take of the address space beyond what the process has [bytes]: no file here is larger than 20 kB.
_MOST_BYTES = 2 * 2**30
EXAMPLES = 60


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Parameters
    ----------
    write : callable
        Writes good files into a folder.
    read : callable
        Reads the folder.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], object]


def _write_case(folder: Path) -> None:
    (folder / "case.toml").write_bytes(HEAT.read_bytes())


def _write_mechanism(folder: Path) -> None:
    (folder / "gas.yaml").write_bytes((SHIPPED / "h2o2.yaml").read_bytes())


def _read_mechanism(folder: Path) -> object:
    document_of.cache_clear()  # it knows files by their names
    return read_mechanism(folder / "gas.yaml")


def _write_ledger(folder: Path) -> None:
    ledger, tables = LedgerFile(folder / "ledger.h5", ("reaction", "melting")), dict(TABLES)
    for _ in range(2):  # a full segment, compressed, and one that grows
        rows = {name: np.zeros(20, dtype) for name, dtype in tables.items()}
        ledger.append(rows.pop("records"), rows)
        ledger.close()


def _read_ledger(folder: Path) -> object:
    ledger = Ledger(folder)
    return ledger.operators, [len(getattr(ledger, name)) for name in TABLES]


def _write_model(folder: Path) -> None:
    signature = Signature(inputs=(Field("u"),), outputs=(Field("u"),), atol=(1e-6,), rtol=(1e-3,))
    surrogate = MLPEnsemble(signature, members=1, width=2, depth=1)
    facts = {
        "operator": "reaction",
        "surrogate": "coupler.models.mlp_ensemble:MLPEnsemble",
        "params": {"members": 1, "width": 2, "depth": 1},
        "step": 3,
        "samples": 9,
        "range_lower": (0.0,),
        "range_upper": (1.0,),
        "threshold": 0.5,
        "holdout_loss": 0.1,
        "holdout_accepted": 0.5,
        "seconds": 1.0,
    }
    Registry(folder).register(surrogate, facts)


def _read_model(folder: Path) -> object:
    registry = Registry(folder)
    return registry.load(registry.card("reaction", 1))


# A reader of checkpoints is one more line.
READERS = {
    "case": Reader(_write_case, lambda folder: read_case(folder / "case.toml")),
    "mechanism": Reader(_write_mechanism, _read_mechanism),
    "ledger": Reader(_write_ledger, _read_ledger),
    "model": Reader(_write_model, _read_model),
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


@pytest.fixture
def files(reader: Reader, tmp_path: Path) -> dict[Path, bytes]:
    """Good files, which a test may spoil."""
    reader.write(tmp_path)
    return {file: file.read_bytes() for file in sorted(tmp_path.rglob("*")) if file.is_file()}


def test_what_was_written_is_read(reader: Reader, files: dict[Path, bytes], tmp_path: Path) -> None:
    assert files
    reader.read(tmp_path)


# The fixtures are one folder for all examples: each restores what the last one spoilt.
fuzz = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(data=st.data(), content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    reader: Reader, files: dict[Path, bytes], tmp_path: Path, data: st.DataObject, content: bytes
) -> None:
    file = data.draw(st.sampled_from(list(files)))
    whole = data.draw(st.booleans())

    with spoilt(files, file, content if whole else files[file][:64] + content):
        read_or_refused(reader, tmp_path)


@fuzz
@given(data=st.data())
def test_files_that_are_cut_short_or_gone_are_read_or_refused(
    reader: Reader, files: dict[Path, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(list(files)))
    length = data.draw(st.integers(0, len(files[file])))

    with spoilt(files, file, files[file][:length] if length else None):
        read_or_refused(reader, tmp_path)


@fuzz
@given(data=st.data())
def test_files_with_a_few_other_bytes_are_read_or_refused(
    reader: Reader, files: dict[Path, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(list(files)))
    content = bytearray(files[file])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))

    with spoilt(files, file, bytes(content)):
        read_or_refused(reader, tmp_path)


@contextmanager
def spoilt(files: dict[Path, bytes], file: Path, content: bytes | None) -> Iterator[None]:
    """Give a file other content, or take it away if None, for a moment."""
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(files[file])


def read_or_refused(reader: Reader, folder: Path) -> None:
    """Read with little memory; every error but a sentence of ours goes on and fails the test."""
    with little_memory(), suppress(CouplerError):
        reader.read(folder)


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process grow by ``_MOST_BYTES`` at most: beyond that, whatever is read wants too much."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
