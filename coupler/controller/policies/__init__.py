"""Gate policies by name; ``module:Class`` names one of the user's own."""

from collections.abc import Mapping

from coupler.controller.policies.policy import (
    GateState,
    HeldOut,
    Introduction,
    Policy,
    Question,
    Rules,
)
from coupler.errors import ConfigError, did_you_mean
from coupler.plugin import build, load

__all__ = ["STOCK", "GateState", "HeldOut", "Introduction", "Policy", "Question", "Rules", "make_policy"]

_HERE = "coupler.controller.policies"
STOCK: Mapping[str, str] = {
    "budget": f"{_HERE}.budget:Budget",
    "proxima": f"{_HERE}.proxima:Proxima",
    "static": f"{_HERE}.static:Static",
    "conformal_static": f"{_HERE}.conformal_static:ConformalStatic",
    "conformal_pid": f"{_HERE}.conformal_pid:ConformalPid",
    "isat": f"{_HERE}.isat:Isat",
    "random": f"{_HERE}.random_share:RandomShare",
    "always": f"{_HERE}.always:Always",
    "never": f"{_HERE}.never:Never",
}
"""Short names of the policies that come along."""


def make_policy(name: str, params: Mapping[str, object], rules: Rules) -> Policy:
    """Build a policy by its short name or ``module:Class``.

    Raises
    ------
    ConfigError, PluginError
        If there is no such policy, or it refuses its parameters.

    Collective: no.
    """
    if ":" not in name and name not in STOCK:
        raise ConfigError(
            f'controller.policy = "{name}": there is no such policy.{did_you_mean(name, STOCK)} There are '
            f"{', '.join(STOCK)}; one of your own is package.module:Class or path/to/file.py:Class."
        )
    return build(load(STOCK.get(name, name), Policy), params, rules, key="controller.params")
