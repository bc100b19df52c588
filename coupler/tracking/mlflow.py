"""MLflow: a run with its case as parameters and its progress as metrics. The only file that imports it."""

from collections.abc import Sequence
from typing import Any

from coupler.errors import ConfigError
from coupler.progress import Progress
from coupler.records import Event
from coupler.summary import Summary
from coupler.tracking.scalars import scalars
from coupler.tracking.tracker import Start, Tracker

# Longest value of a parameter that every store takes.
_LONGEST = 500
# Parameters that a server takes at once.
_AT_ONCE = 100


class MLflowTracker(Tracker):
    """Logs to the server that ``uri`` names, or the environment variable MLFLOW_TRACKING_URI.

    Parameters
    ----------
    uri : str, optional
        Of the tracking server; MLflow's own default if left out. A database in a file, ``sqlite:///FILE``, needs the
        whole package ``mlflow``, not the part that talks to servers.
    experiment : str
        What the run is filed under.
    """

    def __init__(self, uri: str | None = None, experiment: str = "coupler") -> None:
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._run = ""

    def begin(self, start: Start) -> None:
        """Create the run and log its case.

        Raises
        ------
        ConfigError
            If the package is not installed, or the server does not answer.
        """
        try:
            from mlflow.entities import Param
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ConfigError(
                "output.tracker = \"mlflow\" needs a package that is not installed: pip install 'coupler[mlflow]'."
            ) from error
        try:
            client = MlflowClient(self._uri)
            known = client.get_experiment_by_name(self._experiment)
            number = client.create_experiment(self._experiment) if known is None else known.experiment_id
            self._run = client.create_run(number, run_name=start.folder.name).info.run_id
            params = [Param(name, value[:_LONGEST]) for name, value in start.flat_case().items()]
            for first in range(0, len(params), _AT_ONCE):
                client.log_batch(self._run, params=params[first : first + _AT_ONCE])
        except MlflowException as error:
            raise ConfigError(
                f'output.tracker = "mlflow" cannot begin a run ({error}): check its server, and the "uri" in '
                "output.tracker_params."
            ) from error
        self._client, self._operators = client, start.operators

    def steps(self, steps: Sequence[Progress]) -> None:
        """Log the last of these steps."""
        for name, value in scalars(steps[-1]).items():
            self._client.log_metric(self._run, name, value, step=steps[-1].step)

    def event(self, event: Event) -> None:
        """Note what happened, as a tag of the run."""
        name = f"{self._operators[event.operator]}.{event.kind.value}.{event.step}"
        self._client.set_tag(self._run, name, event.sentence)

    def end(self, summary: Summary) -> None:
        """Note the certificate, and that the run has ended well."""
        self._client.set_tag(self._run, "certificate", summary.certificate.sentence)
        self._client.set_terminated(self._run, "FINISHED")
        self._run = ""

    def close(self) -> None:
        """End a run that did not end by itself as a failed one."""
        if self._client is not None and self._run:
            self._client.set_terminated(self._run, "FAILED")
