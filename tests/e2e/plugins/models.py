"""Surrogates of known worth: one is right, one breaks its contract."""

import torch

from coupler.surrogate import Prediction, Surrogate


class Exact(Surrogate):
    """Knows what decays, to the last bits: an answer that went to the wrong element shows."""

    def __init__(self, signature):
        super().__init__(signature)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def fit(self, samples, *, seed, seconds=None):
        pass

    def predict(self, inputs, dt):
        return Prediction(inputs * torch.exp(-dt)[:, None], torch.zeros_like(dt))


class Forgetful(Surrogate):
    """Answers well where it was trained and badly where it is loaded: what makes it good is in no buffer.

    How it is bad, the name of its operator's output says.
    """

    def __init__(self, signature):
        super().__init__(signature)
        self.rate = torch.nn.Parameter(torch.zeros(1))
        self.knows = False

    def fit(self, samples, *, seed, seconds=None):
        self.knows = True

    def predict(self, inputs, dt):
        mean, score = inputs * torch.exp(-dt)[:, None], torch.zeros_like(dt)
        if self.knows:
            return Prediction(mean, score)
        match self.signature.output_names[0]:
            case "nan":
                return Prediction(torch.full_like(mean, torch.nan), score)
            case "shape":
                return Prediction(mean[:-1], score)
        raise ArithmeticError("where am I?")
