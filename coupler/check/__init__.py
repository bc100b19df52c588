"""``coupler check``: go through the contract of a plug-in, line by line, before a run depends on it.

Under mpirun a kernel is tried on all ranks as well, and its lines then say whether the decomposition makes a
difference. Nothing here needs Ray or a GPU.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coupler.check.kernel import check_kernel_operator, check_whole_kernel
from coupler.check.lines import CheckLine, said
from coupler.check.operator import check_operator
from coupler.check.surrogate import check_surrogate
from coupler.config import override_value
from coupler.errors import ConfigError, PluginError, did_you_mean
from coupler.kernel import Kernel
from coupler.operator import Operator
from coupler.plugin import build, load_object
from coupler.surrogate import Surrogate

__all__ = ["CheckLine", "check_plugin"]

_BUILT = "it is built with its parameters"
_DT_KEY = "run.dt"
# Short: an explicit scheme on the small grid must be stable, whatever its unit of time.
_DT = 1e-3


def check_plugin(name: str, settings: Sequence[str] = ()) -> list[CheckLine]:
    """Test a plug-in against its contract.

    Parameters
    ----------
    name : str
        A kernel or surrogate class, an operator object, or an operator of a kernel: ``module:Class``,
        ``path/to/file.py:Class``, ``module:OPERATOR``, ``module:Kernel.operator``.
    settings : sequence of str
        ``key=value`` with a TOML value, for the parameters of the constructor; ``run.dt`` is the time step.

    Returns
    -------
    list of CheckLine
        In the order they were tried. What cannot be judged because an earlier line failed is left out.

    Raises
    ------
    PluginError, ConfigError
        If there is no such plug-in, or a setting is malformed.

    Collective: yes, for kernels.
    """
    params = _read(settings)
    dt = _time_step(params.pop(_DT_KEY, _DT))
    place, _, path = name.rpartition(":")
    owner, dot, attribute = path.rpartition(".")
    kernel = load_object(f"{place}:{owner}") if dot else None
    if isinstance(kernel, type) and issubclass(kernel, Kernel):
        return _check_operator_of(kernel, attribute, params, dt)
    found = load_object(name)
    if isinstance(found, type) and issubclass(found, Kernel):
        return _check_kernel(found, params, dt)
    if isinstance(found, type) and issubclass(found, Surrogate):
        return check_surrogate(found, params)
    if isinstance(found, Operator):
        return _check_operator_object(found, name, params, dt)
    raise PluginError(f'"{name}" is neither a Kernel or Surrogate class nor an Operator: it has no contract to check.')


def _check_kernel(plugin: type[Kernel], params: Mapping[str, Any], dt: float) -> list[CheckLine]:
    try:
        kernel = build(plugin, params, key="kernel.params")
    except Exception as error:  # noqa: BLE001 - the edge of the user's code
        return [CheckLine(_BUILT, False, said(error))]
    return [CheckLine(_BUILT, True, ""), *check_whole_kernel(kernel, dt)]


def _check_operator_of(plugin: type[Kernel], attribute: str, params: Mapping[str, Any], dt: float) -> list[CheckLine]:
    kernel = build(plugin, params, key="kernel.params")
    if attribute not in kernel.operators:
        near = did_you_mean(attribute, kernel.operators)
        raise PluginError(f'{plugin.__name__} has no operator "{attribute}".{near}')
    return check_kernel_operator(kernel, attribute, dt)


def _check_operator_object(operator: Operator, name: str, params: Mapping[str, Any], dt: float) -> list[CheckLine]:
    if params:
        raise ConfigError(f'"{name}" is an object and takes no parameters: leave out --set {next(iter(params))}=...')
    return check_operator(operator, np.empty((0, len(operator.signature.inputs))), dt)


def _read(settings: Sequence[str]) -> dict[str, Any]:
    params = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {setting}: write key=value with a parameter of the plug-in, as in width=32.")
        params[key.strip()] = override_value(value.strip())
    return params


def _time_step(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{_DT_KEY} = {value!r} is no time step: write a positive number, as in {_DT_KEY}=1e-3.")
    return float(value)
