"""What a case comes to for the operators at hand: their tolerances, the audit rate, the controller."""

from collections.abc import Mapping

from coupler.case import Case
from coupler.controller import Controller
from coupler.controller.auditing import chosen_audit_rate
from coupler.errors import ConfigError, PluginError, did_you_mean
from coupler.operator import Operator


def with_tolerances(operators: Mapping[str, Operator], case: Case) -> dict[str, Operator]:
    """Apply the case's [operator.NAME] sections; PluginError if there is no operator, ConfigError if one is unknown."""
    if not operators:
        raise PluginError("A coupling needs at least one operator.")
    for name in case.operator:
        if name not in operators:
            raise ConfigError(f'[operator.{name}]: there is no operator "{name}".{did_you_mean(name, operators)}')
    return {
        name: operator.with_tolerance(atol=case.operator[name].atol, rtol=case.operator[name].rtol)
        if name in case.operator
        else operator
        for name, operator in operators.items()
    }


def with_audit_rate(case: Case, elements: int) -> Case:
    """Put the audit rate in where it is to be chosen, so that the effective case has it and a replay finds it.

    Parameters
    ----------
    case : Case
        As it was asked for.
    elements : int
        Decisions of a step, on all ranks; 0 if nobody knows.

    Raises
    ------
    ConfigError
        If the rate is to be chosen and nobody knows the number of decisions.
    """
    section = case.controller
    if section.audit_rate != "auto":
        return case
    if not elements:
        raise ConfigError(
            'controller.audit_rate = "auto" is chosen from the number of decisions, and nobody knows how many '
            "there will be: pass elements= to Coupling, or give a number, for example 0.02."
        )
    rate = chosen_audit_rate(elements * case.run.steps, section.target, section.delta)
    return case.model_copy(update={"controller": section.model_copy(update={"audit_rate": rate})})


def controller_of(case: Case) -> Controller:
    """Build the rules that the case asks for; its audit rate is a number by now."""
    section, rate = case.controller, case.controller.audit_rate
    assert rate != "auto"
    return Controller(
        mode=section.mode,
        target=section.target,
        delta=section.delta,
        cap=section.cap,
        audit_rate=rate,
        threshold=section.threshold,
        policy=section.policy,
        params=section.params,
        seed=case.run.seed,
        alarm_rate=section.alarm_rate,
        repair=section.repair,
        hysteresis=section.hysteresis,
        blend=section.blend,
    )
