"""The rules of the gate in NumPy, one after the other: what its one compiled pass is held against."""

import numpy as np
from numpy.typing import NDArray

from coupler.controller import AuditedSums, Limits, quantise
from coupler.operator import Signature
from coupler.records import Reason

Floats = NDArray[np.float64]


def judged(
    inputs: Floats, mean: Floats, score: Floats, limits: Limits, *, threshold: float, stopped: bool = False
) -> NDArray[np.uint8]:
    """Why each answer may stand or not; the rule that comes first has the last word."""
    with np.errstate(invalid="ignore"):
        defect = np.abs(mean @ limits.after.T - inputs @ limits.before.T)
        rules = [
            (~np.isfinite(mean).all(axis=1) | ~np.isfinite(score), Reason.NOT_FINITE),
            (~((mean >= limits.lower) & (mean <= limits.upper)).all(axis=1), Reason.OUT_OF_BOUNDS),
            (~(defect <= limits.slack + np.abs(mean) @ limits.slope.T).all(axis=1), Reason.NOT_CONSERVED),
            (~((inputs >= limits.range_lower) & (inputs <= limits.range_upper)).all(axis=1), Reason.OUT_OF_RANGE),
            (np.maximum(score, 0) >= threshold, Reason.SCORE),
        ]
    passed = Reason.BUDGET if stopped else Reason.ACCEPTED
    return np.select([rule for rule, _ in rules], [reason for _, reason in rules], passed).astype(np.uint8)


def measured(answer: Floats, truth: Floats, signature: Signature, cap: float) -> tuple[Floats, NDArray[np.int64]]:
    """Errors in tolerances, and their losses in units of the certificate."""
    error = signature.error(answer, truth)
    return error, quantise(error / cap)


def audited_sums(
    reasons: NDArray[np.uint8], audited: NDArray[np.bool_], error: Floats, loss: NDArray[np.int64], rate: float
) -> AuditedSums:
    """What one call tells the certificate: of all elements what became of them, of the audited ones their losses."""
    accepted, withheld, refused = (reasons == one for one in (Reason.ACCEPTED, Reason.BUDGET, Reason.SCORE))
    return AuditedSums(
        rate,
        decisions=reasons.size,
        audits=int(audited.sum()),
        accepted=int(accepted.sum()),
        loss=int(loss[accepted[audited]].sum()),
        exceedances=int((error[accepted[audited]] > 1.0).sum()),
        withheld=int(withheld.sum()),
        withheld_loss=int(loss[withheld[audited]].sum()),
        refused=int(refused.sum()),
    )
