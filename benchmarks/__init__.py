"""Benchmarks, one script per figure; a package, so that ranks and Ray's actors import what they share by name."""
