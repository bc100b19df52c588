"""Learning while the run goes: samples on disk, training rounds, versions of models."""
