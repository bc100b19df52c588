"""Trackers: whoever is told of a run while it goes on. TensorBoard, MLflow, Prometheus, or a class of the user's."""

from coupler.tracking.teller import Teller
from coupler.tracking.tracker import Start, Tracker, open_trackers

__all__ = ["Start", "Teller", "Tracker", "open_trackers"]
