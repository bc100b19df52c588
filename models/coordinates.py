"""Tolerance coordinates: what the networks read and what they answer, whatever the quantities are.

An output y is seen as u(y) = sign(y) ln(1 + rtol |y| / atol) / rtol, because du = dy / (atol + rtol |y|): a distance of
1 in u is one tolerance of y, whatever the size of y. So the loss of a training is the error the gate measures,
quantities over many decades need no scaling by hand, and the spread of several answers is a score as it stands. Where
an input has the name of an output the networks answer with the increment of u. Inputs that are never negative are read
by their logarithm, down to a tenth of the absolute tolerance: a run is fed with what it accepted, so that where fresh
gas held none of a radical it soon holds a thousandth of a tolerance, which no solver ever left there. Nets that read
the decades below were a few hundredths of a tolerance off on the truth, and 60 tolerances one step after their own.
"""

import torch
from numba import njit
from torch import Tensor

from coupler.fused import larger, log_lanes, signed_expm1_lanes, signed_log1p_lanes
from coupler.lanes import LANES
from coupler.models.tolerance import LEAST_RTOL, decode, encode
from coupler.operator import Signature

# Of a non-negative input, what is below this share of the large values looks like zero.
_LOG_RANGE = 1e-9
# As does, where an output has its name, what is below this share of the absolute tolerance.
_LOG_TOLERANCE = 0.1
# A column that varies so many times more than when the scales were taken needs new ones.
_OUTGROWN = 4.0
# Rows of what the compiled form knows of its features and of its outputs.
_FLOOR, _CENTRE, _FACTOR = range(3)
_SOURCE, _KNEE, _RTOL, _SHIFT, SCALE, _LOWER, _UPPER = range(7)
_NONE = -1.0


class Coordinates(torch.nn.Module):
    """Features of the inputs, and increments of the outputs, of one operator.

    Parameters
    ----------
    signature : Signature
        Names, bounds and tolerances of the operator.
    """

    rtol: Tensor
    knee: Tensor
    source: Tensor
    has_source: Tensor
    logged: Tensor
    lower: Tensor
    upper: Tensor
    floor: Tensor
    feature_mean: Tensor
    feature_scale: Tensor
    increment_mean: Tensor
    increment_scale: Tensor

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.features, self.answers = len(signature.inputs) + 1, len(signature.outputs)
        self._register_columns(signature)
        for name, size in (("feature", self.features), ("increment", self.answers)):
            self.register_buffer(f"{name}_mean", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{name}_scale", torch.ones(size, dtype=torch.float64))
        self.register_buffer("floor", torch.ones(len(signature.inputs), dtype=torch.float64))

    def take_scales(self, inputs: Tensor, dt: Tensor, truth: Tensor) -> None:
        """Take all scales from samples: inputs (n, n_in), dt (n,), truth (n, n_out)."""
        small, large = torch.quantile(inputs[: 2**20], torch.tensor([0.001, 0.99], dtype=torch.float64), dim=0)
        floor = torch.maximum(torch.maximum(0.1 * small, _LOG_RANGE * large), _LOG_TOLERANCE * self._input_atol())
        self.floor.copy_(torch.where(floor > 0, floor, torch.ones_like(floor)))
        for name, values in (("feature", self._raw(inputs, dt)), ("increment", self._increments(inputs, truth))):
            self.get_buffer(f"{name}_mean").copy_(values.mean(0))
            self.get_buffer(f"{name}_scale").copy_(_scale(values))

    def outgrown(self, inputs: Tensor, dt: Tensor, truth: Tensor) -> bool:
        """Tell whether samples vary so much more than those the scales are from that networks had better start anew.

        A run that begins before the ignition shows increments of a thousandth of those that come.
        """
        pairs = (("feature", self._raw(inputs, dt)), ("increment", self._increments(inputs, truth)))
        return any(
            bool(
                (_spread(values, self.get_buffer(f"{name}_mean")) > _OUTGROWN * self.get_buffer(f"{name}_scale")).any()
            )
            for name, values in pairs
        )

    def base(self, inputs: Tensor) -> Tensor:
        """Where increments start: the coordinate of the input of the same name, zero if there is none."""
        return encode(inputs[:, self.source], self.knee, self.rtol) * self.has_source

    def read(self, inputs: Tensor, dt: Tensor) -> Tensor:
        """Give features (n, n_in + 1), float32, of mean 0 and deviation 1 over the samples of the scales."""
        return ((self._raw(inputs, dt) - self.feature_mean) / self.feature_scale).float()

    def wanted(self, inputs: Tensor, truth: Tensor) -> Tensor:
        """Give what a network should answer, (n, n_out), float32, likewise."""
        return ((self._increments(inputs, truth) - self.increment_mean) / self.increment_scale).float()

    def write(self, inputs: Tensor, answer: Tensor) -> Tensor:
        """Give outputs (n, n_out), float64, inside their bounds, of what a network answered."""
        coordinates = self.base(inputs) + answer.double() * self.increment_scale + self.increment_mean
        mean = decode(coordinates, self.knee, self.rtol)
        return torch.clamp(mean, self.lower, self.upper)

    def jolted(self, inputs: Tensor, truth: Tensor, tolerances: Tensor) -> tuple[Tensor, Tensor]:
        """Move inputs (n, n_in) of the outputs' names by so many tolerances (n, n_out), and the truth along with them.

        Both stay within their bounds; the increments stay as they are but for that.
        """
        has = self.has_source > 0
        moved = decode(self.base(inputs) + tolerances, self.knee, self.rtol).clamp(self.lower, self.upper)
        result = inputs.clone()
        result[:, self.source[has]] = moved[:, has]
        after = decode(self.base(result) + self._increments(inputs, truth), self.knee, self.rtol)
        return result, torch.where(has, after.clamp(self.lower, self.upper), truth)

    def feature_rows(self) -> Tensor:
        """Give what :func:`put_features` reads."""
        floor = torch.where(self.logged, self.floor, torch.full_like(self.floor, _NONE))
        return torch.stack([torch.cat([floor, floor.new_tensor([_NONE])]), self.feature_mean, 1.0 / self.feature_scale])

    def output_rows(self) -> Tensor:
        """Give what :func:`start_increments` and :func:`add_increments` read."""
        source = torch.where(self.has_source > 0, self.source.double(), torch.full_like(self.rtol, _NONE))
        columns = (self.knee, self.rtol, self.increment_mean, self.increment_scale, self.lower, self.upper)
        return torch.stack([source, *columns])

    def _register_columns(self, signature: Signature) -> None:
        """Put what the signature says into buffers, so that it follows the module to its device; it is not saved."""
        rtol = torch.tensor(signature.rtol, dtype=torch.float64).clamp(min=LEAST_RTOL)
        sources = torch.tensor(signature.increments)
        columns = {
            "rtol": rtol,
            "knee": torch.tensor(signature.atol, dtype=torch.float64) / rtol,
            "source": sources.clamp(min=0),
            "has_source": (sources >= 0).double(),
            "logged": torch.tensor([column.lower >= 0 for column in signature.inputs]),
            "lower": torch.tensor([column.lower for column in signature.outputs], dtype=torch.float64),
            "upper": torch.tensor([column.upper for column in signature.outputs], dtype=torch.float64),
        }
        for name, values in columns.items():
            self.register_buffer(name, values, persistent=False)

    def _input_atol(self) -> Tensor:
        """Give the absolute tolerance of every input's output, zero where none has its name."""
        has, atol = self.has_source > 0, torch.zeros_like(self.floor)
        return atol.index_copy(0, self.source[has], (self.knee * self.rtol)[has])

    def _increments(self, inputs: Tensor, truth: Tensor) -> Tensor:
        return encode(truth, self.knee, self.rtol) - self.base(inputs)

    def _raw(self, inputs: Tensor, dt: Tensor) -> Tensor:
        columns = torch.where(self.logged, torch.log(inputs.clamp(min=0) + self.floor), inputs)
        return torch.cat([columns, torch.log(dt)[:, None]], dim=1)


def _spread(values: Tensor, centre: Tensor) -> Tensor:
    return (values - centre).square().mean(0).sqrt()


def _scale(values: Tensor) -> Tensor:
    """Deviation of every column; a column that does not vary becomes zero, not rounding noise blown up."""
    scale = values.std(0, correction=0)
    return torch.where(scale > 1e-9 * (1 + values.abs().amax(0)), scale, torch.ones_like(scale))


@njit(nogil=True)
def start_increments(columns, outputs, answers):
    """See :meth:`Coordinates.base`: the coordinates of the inputs of the outputs' names, in units of 1 / rtol."""
    for output in range(len(answers)):
        source = int(outputs[_SOURCE, output])
        for lane in range(LANES):
            answers[output, lane] = columns[max(source, 0), lane] / outputs[_KNEE, output]
        if source >= 0:
            signed_log1p_lanes(answers, output)
        else:
            answers[output] *= 0.0  # and NaN where the first input is not finite, as there


@njit(nogil=True)
def put_features(columns, log_dt, features, net):
    """See :meth:`Coordinates.read`; spoils the columns."""
    n_in = len(columns)
    for column in range(n_in):
        floor = features[_FLOOR, column]
        if floor != _NONE:
            for lane in range(LANES):
                columns[column, lane] = larger(columns[column, lane], 0.0) + floor
            log_lanes(columns, column)
        for lane in range(LANES):
            net[column, lane] = (columns[column, lane] - features[_CENTRE, column]) * features[_FACTOR, column]
    net[n_in] = (log_dt - features[_CENTRE, n_in]) * features[_FACTOR, n_in]


@njit(nogil=True)
def add_increments(net, average, outputs, answers):
    """See :meth:`Coordinates.write`: add the networks' answer to where increments start, and leave the coordinates."""
    for output in range(len(answers)):
        rtol, shift, scale = outputs[_RTOL, output], outputs[_SHIFT, output], outputs[SCALE, output]
        for lane in range(LANES):
            answers[output, lane] += (net[average + output, lane] * scale + shift) * rtol
        signed_expm1_lanes(answers, output)
        knee, lower, upper = outputs[_KNEE, output], outputs[_LOWER, output], outputs[_UPPER, output]
        for lane in range(LANES):
            value = answers[output, lane] * knee
            value = lower if value < lower else value  # NaN stays
            answers[output, lane] = upper if value > upper else value
