"""Surrogates that stand on a package of their own, which may not be installed."""

import importlib.util

PACKAGES = {"gp": "gpytorch", "fno": "neuralop"}
MISSING = {name: package for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None}
