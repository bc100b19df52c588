"""The observer: what a rank learns of the surrogate from the truth it computes anyway, counted for all who want it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coupler.controller import ControllerState, Scale, Workspace, measure
from coupler.controller.boxes import Boxes, audit_in_boxes, count_in_boxes
from coupler.controller.regions import Regions, watch
from coupler.controller.trial import compare
from coupler.coupling.call import Audits, Floats, Piece, Reasons, Rows
from coupler.coupling.counts import Counts
from coupler.operator import Operator
from coupler.records import Reason


class Observer:
    """Compares answers with truth: by score, by output, by region, by box, and between two versions.

    Attributes
    ----------
    regions : Regions
        The division of the input space in which the present version is watched.
    boxes : Boxes
        Parts of the input space that there are statements about.
    on_audits : callable or None
        Told of the audited answers one by one.

    Parameters
    ----------
    operator : Operator
        Whose answers.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    boxes : Boxes
        As above.
    counts : Counts
        Where everything is added up.
    """

    def __init__(self, operator: Operator, cap: float, boxes: Boxes, counts: Counts) -> None:
        signature = operator.signature
        self.regions = Regions.none(len(signature.inputs))
        self.boxes = boxes
        self.on_audits: Callable[[Audits], None] | None = None
        self._signature, self._counts, self._cap = signature, counts, cap
        self._atol, self._rtol = np.array(signature.atol), np.array(signature.rtol)

    def audited(
        self, piece: Piece, mean: Floats, score: Floats, space: Workspace, truth: Floats, state: ControllerState
    ) -> None:
        """Take in the audits of an answered piece.

        Parameters
        ----------
        piece : Piece
            What was asked.
        mean, score : ndarray (n, n_out) and (n,)
            The answer.
        space : Workspace
            Which elements were audited, and what the gate said of everybody.
        truth : ndarray (m, n_out)
            Of the audited elements.
        state : ControllerState
            What holds in this step.

        Collective: no.
        """
        rows, verdicts = space.audited[: len(truth)], space.verdicts[: len(truth)]
        self.compared(mean, score, rows, verdicts, truth, state.unit)
        if len(truth):
            inputs, answers = piece.inputs[rows], mean[rows]
            self._watch(inputs, answers, verdicts, truth, state.alarms.level)
            if self.on_audits is not None:
                error = self._signature.error(answers, truth)
                self.on_audits(Audits(piece.step, piece.call, piece.ids[rows], score[rows], error, verdicts.copy()))
            if self.boxes.names:
                audit_in_boxes(
                    inputs, answers, verdicts, truth, self.boxes, self._atol, self._rtol, self._cap, self._counts.boxes
                )
        if self.boxes.names:
            everybody = space.reasons[: len(piece.ids)].copy()
            everybody[rows] = verdicts
            count_in_boxes(piece.inputs, everybody, self.boxes, self._counts.boxes)

    def compared(self, mean: Floats, score: Floats, rows: Rows, verdicts: Reasons, truth: Floats, unit: float) -> None:
        """Take in some answers whose truth is known.

        Parameters
        ----------
        mean, score : ndarray (n, n_out) and (n,)
            The answer to a piece.
        rows, verdicts : ndarray (m,)
            Whose truth it is, and what the gate said of them.
        truth : ndarray (m, n_out)
            The truth.
        unit : float
            What scores are counted from.

        Collective: no.
        """
        scale = Scale(self._atol, self._rtol, self._cap, unit)
        measure(mean, score, rows, verdicts, truth, scale, self._counts.measures)

    def unanswered(self, piece: Piece, reason: Reason) -> None:
        """Take in elements without an answer, of which there was nothing to accept. Collective: no."""
        if self.boxes.names:
            count_in_boxes(piece.inputs, np.full(len(piece.ids), reason, np.uint8), self.boxes, self._counts.boxes)

    def tried(self, defender: Floats, challenger: Floats, truth: Floats) -> None:
        """Take in audits that two versions answered, each (m, n_out). Collective: no."""
        compare(defender, challenger, truth, self._atol, self._rtol, self._cap, self._counts.trial)

    def _watch(self, inputs: Floats, mean: Floats, verdicts: Reasons, truth: Floats, level: float) -> None:
        count = len(self.regions.centres)
        if count:
            numbers: NDArray[np.int64] = self._counts.regions[:count]
            watch(inputs, mean, verdicts, truth, self.regions, self._atol, self._rtol, self._cap, level, numbers)
