"""Experiments: many settings of a case compared on recorded truth or in whole runs."""

from coupler.experiment.experiment import Experiment, Results
from coupler.experiment.lines import Lines, slice_of
from coupler.experiment.outcome import Outcome
from coupler.experiment.plan import read_plan

__all__ = ["Experiment", "Lines", "Outcome", "Results", "read_plan", "slice_of"]
