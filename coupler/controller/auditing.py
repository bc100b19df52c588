"""How many decisions to audit: few audits leave much of the budget to uncertainty, many cost truth.

With N decisions to come, a true mean loss of y target is certified to stay below the target if
y + sqrt(2 y / (p M)) = 1 with M = target N / ln(K / delta): the leading terms of the bound in
:mod:`coupler.controller.certificate`. What is lost of the budget costs accepted answers, about half as many in
proportion, as the last answers a gate lets through are the worst; each of them, and each audit, costs one truth.
"""

import math

import numpy as np

from coupler.controller.certificate import Certificate

_LEAST, _MOST, _RATES = 1e-3, 0.2, 200
_WORTH = 0.5


def chosen_audit_rate(decisions: int, target: float, delta: float) -> float:
    """Choose the audit rate of a run from its length.

    Parameters
    ----------
    decisions : int
        Decisions of the whole run.
    target, delta : float
        Of the certificate.

    Returns
    -------
    float
        Between 0.001 and 0.2, rounded to two digits.

    Collective: no.
    """
    rates = np.geomspace(_LEAST, _MOST, _RATES)
    price = math.log(Certificate(delta, 1.0, 1.0).constants / delta)
    wide = 2.0 / (rates * max(target * decisions / price, 1e-9))
    # y + sqrt(wide y) = 1, solved for sqrt(y).
    usable = ((np.sqrt(wide + 4.0) - np.sqrt(wide)) / 2.0) ** 2
    best = float(rates[int(np.argmin(rates + _WORTH * (1.0 - usable)))])
    return float(f"{best:.2g}")
