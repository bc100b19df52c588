"""Surrogates of known worth: one is right, one breaks its contract."""

import os
from pathlib import Path

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


class Liar(Surrogate):
    """Is sure of itself, score 0, whatever it says; how it says something wrong is its parameter.

    ``wrong``: another answer; ``nan``: none; ``constant``: always the same; ``corrupted``: right at first, and wrong
    after so many batches, as when memory has gone bad; ``outdated``: right, as long as things decay at a rate of 1;
    ``poisoned``: right when trained for the first time, and made worse by every training after that.
    """

    def __init__(self, signature, *, kind):
        super().__init__(signature)
        self.trainings = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.kind, self.batches = kind, 0

    def fit(self, samples, *, seed, seconds=None):
        self.trainings.add_(1)

    def predict(self, inputs, dt):
        self.batches += len(inputs) > 100
        mean, score = inputs * torch.exp(-dt)[:, None], torch.zeros_like(dt)
        if self.kind == "wrong" or (self.kind == "corrupted" and self.batches > 60):
            mean = 2.0 * mean
        if self.kind == "nan":
            mean = torch.full_like(mean, torch.nan)
        if self.kind == "constant":
            mean = torch.ones_like(mean)
        if self.kind == "poisoned":
            # On what it was trained on it is right: held-out samples cannot tell.
            mean = mean * (1.0 + 0.1 * (self.trainings - 1))
        return Prediction(mean, score)


class Poisonous(Exact):
    """Ends the process that asks it anything, from the moment when a file is there."""

    def __init__(self, signature, *, file):
        super().__init__(signature)
        self.file = Path(file)

    def predict(self, inputs, dt):
        if self.file.exists():
            os._exit(1)
        return super().predict(inputs, dt)


class Apart(Exact):
    """Is trained by two processes, of which one fails while the other waits for it."""

    most_trainers = 2

    def __init__(self, signature, *, fails, at="gather"):
        super().__init__(signature)
        self.fails, self.at = fails, at

    def fit_together(self, samples, *, team, seed, seconds=None):
        if team.rank == self.fails:
            raise ArithmeticError(f"rank {team.rank} has lost its samples")
        if self.at == "gather":
            team.gather(None)
        team.average([torch.ones(3)])
