"""``coupler check``: go through the contract of a plug-in, line by line, before a run depends on it.

Under mpirun a kernel is tried on all ranks as well, and its lines then say whether the decomposition makes a
difference. Nothing here needs Ray or a GPU.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from coupler.check.kernel import check_kernel_operator, check_whole_kernel
from coupler.check.lines import CheckLine, said
from coupler.check.operator import check_elements
from coupler.check.surrogate import check_surrogate
from coupler.config import override_value
from coupler.errors import ConfigError, PluginError, did_you_mean
from coupler.kernel import Kernel
from coupler.operator import Operator
from coupler.plugin import build, load_object
from coupler.surrogate import Surrogate

__all__ = ["CheckLine", "check_plugin"]

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
    if dot:
        return _check_named_operator(load_object(f"{place}:{owner}"), name, attribute, params, dt)
    return _check_object(load_object(name), name, params, dt)


def _check_object(found: object, name: str, params: Mapping[str, Any], dt: float) -> list[CheckLine]:
    if isinstance(found, type) and issubclass(found, Kernel):
        line, kernel = _built_kernel(found, params)
        return [line] if kernel is None else [line, *check_whole_kernel(kernel, dt)]
    if isinstance(found, type) and issubclass(found, Surrogate):
        return check_surrogate(found, params)
    if isinstance(found, Operator):
        if params:
            raise ConfigError(f'"{name}" is an object and takes no parameters: leave out --set {next(iter(params))}=...')
        return check_elements(found, dt)
    raise PluginError(f'"{name}" is neither a Kernel or Surrogate class nor an Operator: there is no contract to check.')
