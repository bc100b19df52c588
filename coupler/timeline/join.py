"""``trace.json``: the pieces of all ranks as one timeline in the format of Chrome's tracing, which Perfetto opens."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coupler.atomic import replacing
from coupler.errors import CouplerError
from coupler.timeline.piece import PIECES, Head, Piece, read_piece

# Spans of all ranks together in one trace: some 100 MB, which a browser still opens. The pieces have all.
_MOST_SPANS = 1_000_000
# Processes in the picture that are none of the ranks'.
_TRAINER, _CURVES, _SERVERS = 1_000_001, 1_000_002, 2_000_000
_RANK_LANE, _IO_LANE = 0, 1
_IO = ("io", "ledger")
_MODEL = "model"


def write_trace(folder: Path) -> Path:
    """Put the pieces of a run together; it may be going on, have ended or been killed.

    One process per rank with its own work and its files, one per node for the server with a row for every rank that
    asked, one for the trainer, and curves of what was accepted and certified. Times count from the start of the set-up
    on rank 0, in microseconds, as the format has it.

    Parameters
    ----------
    folder : Path
        The run folder.

    Returns
    -------
    Path
        ``trace.json``.

    Raises
    ------
    CouplerError
        If the run has no pieces, or one cannot be read.

    Collective: no.
    """
    files = sorted((folder / "trace").glob(PIECES))
    if not files:
        raise CouplerError(
            f"{folder} holds no pieces of a timeline, so there is nothing to put together: run the case with "
            "--set trace.on=true."
        )
    pieces = [read_piece(file, max(_MOST_SPANS // len(files), 1)) for file in files]
    began = pieces[0].head.began + pieces[0].head.offset
    path = folder / "trace.json"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        for number, event in enumerate(_events(folder, pieces, began)):
            out.write(("" if number == 0 else ",\n") + json.dumps(event, separators=(",", ":")))
        out.write("\n]}\n")
    return path


def _events(folder: Path, pieces: Sequence[Piece], began: int) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        yield from _names(piece.head)
        yield from _spans(piece, began)
    yield from _trainings(folder, began)
    yield from _curves(folder)


def _names(head: Head) -> Iterator[dict[str, Any]]:
    where = f"{head.host}, clock within {head.doubt / 1e3:.0f} µs" if head.node else head.host
    yield from _process(head.rank, f"rank {head.rank} on {where}", place=head.rank)
    yield from _process(_SERVERS + head.node, f"model that answers {head.host}", place=_SERVERS + head.node)
    yield _lane(head.rank, _RANK_LANE, "rank")
    yield _lane(head.rank, _IO_LANE, "I/O")
    yield _lane(_SERVERS + head.node, head.rank, f"for rank {head.rank}")


def _spans(piece: Piece, began: int) -> Iterator[dict[str, Any]]:
    head, shift = piece.head, (piece.head.offset - began) / 1e3
    for code, started, stopped, step in piece.spans.tolist():
        name = head.names[int(code)] if 0 <= code < len(head.names) else str(code)
        process, lane = head.rank, _IO_LANE if name in _IO else _RANK_LANE
        if name == _MODEL:
            process, lane = _SERVERS + head.node, head.rank
        event = {"ph": "X", "name": name, "pid": process, "tid": lane, "ts": round(started * 1e6 + shift, 3)}
        event["dur"] = round(max(stopped - started, 0.0) * 1e6, 3)
        yield event | ({"args": {"step": int(step)}} if step else {})


def _trainings(folder: Path, began: int) -> Iterator[dict[str, Any]]:
    """Give the training rounds that say when they ran, by the clock of rank 0's node, on which the trainer is."""
    yield from _process(_TRAINER, "trainer", place=_TRAINER)
    for path in sorted((folder / "models").glob("*-round-*.json")):
        try:
            outcome = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # it is told elsewhere that a round's outcome is damaged
        if outcome.get("began") is None or outcome.get("ended") is None:
            continue
        yield {
            "ph": "X",
            "name": path.stem,
            "pid": _TRAINER,
            "tid": 0,
            "ts": outcome["began"] * 1e6 - began / 1e3,
            "dur": (outcome["ended"] - outcome["began"]) * 1e6,
            "args": {"outcome": outcome.get("sentence", "")},
        }


def _curves(folder: Path) -> Iterator[dict[str, Any]]:
    yield from _process(_CURVES, "certificate and gate", place=-1)
    for progress in _progress(folder / "metrics.jsonl"):
        accepted = progress["decisions"]["accepted"] / max(progress["elements"], 1)
        curves = {"accepted": accepted, "loss bound": progress["loss_bound"], "threshold": progress["threshold"]}
        for name, value in curves.items():
            if math.isfinite(value):
                stamp = progress["seconds"] * 1e6
                yield {"ph": "C", "name": name, "pid": _CURVES, "tid": 0, "ts": stamp, "args": {name: value}}


def _progress(path: Path) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def _process(number: int, name: str, *, place: int) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": number, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": number, "args": {"sort_index": place}}


def _lane(process: int, lane: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": "thread_name", "pid": process, "tid": lane, "args": {"name": name}}
