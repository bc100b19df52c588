"""Python, the packages and the GPU."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import coupler
from coupler.doctor.finding import Finding

_OLDEST_PYTHON = (3, 11)
_PACKAGES = (
    "h5py",
    "matplotlib",
    "mpi4py",
    "numba",
    "numpy",
    "pydantic",
    "ray",
    "rich",
    "safetensors",
    "torch",
    "typer",
)
_DRIVER_SECONDS = 5.0


def examine_software() -> list[Finding]:
    """Look at Python, the packages and HDF5.

    Collective: no.
    """
    return [_python(), _packages(), _hdf5()]


def examine_gpu() -> list[Finding]:
    """Ask torch and the driver for GPUs; they may disagree.

    Collective: no.
    """
    cards = _cards()
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Finding("GPU", "wrong", f"torch cannot be imported: {error}", "pip install --force-reinstall torch")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        driver = f"; the driver says {'; '.join(cards)}" if cards else ""
        return [Finding("GPU", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}{driver}{_hidden()}")]
    if cards and torch.version.cuda is None:
        found = f"{'; '.join(cards)}, but this torch {torch.__version__} is built for CPUs only"
        return [Finding("GPU", "note", found, "pip install --force-reinstall torch, from an index with CUDA builds")]
    if cards and os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        found = f"{'; '.join(cards)}, but CUDA_VISIBLE_DEVICES hides all of them"
        return [Finding("GPU", "note", found, "unset CUDA_VISIBLE_DEVICES, or ask the batch system for a GPU")]
    if cards:
        found = (
            f"{'; '.join(cards)}, but torch cannot use it: its CUDA {torch.version.cuda} may be newer than the driver"
        )
        return [Finding("GPU", "wrong", found, "nvidia-smi, and a torch for the CUDA version it shows")]
    return [
        Finding(
            "GPU",
            "note",
            "none: the surrogate runs on the CPU",
            'Nothing; surrogate.device = "cuda:0" would be an error here.',
        )
    ]


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable}), coupler {coupler.__version__}"
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("Python", "wrong", found, "make env PYTHON=python3.11")
    return Finding("Python", "ok", found)


def _packages() -> Finding:
    versions, missing = [], []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", "wrong", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding("packages", "ok", ", ".join(versions))


def _hdf5() -> Finding:
    try:
        import h5py
    except (ImportError, OSError) as error:
        return Finding("HDF5", "wrong", f"h5py cannot be imported: {error}", "pip install --force-reinstall h5py")
    found = f"{h5py.version.hdf5_version} through h5py {h5py.version.version}"
    built, running = h5py.version.hdf5_built_version_tuple, h5py.version.hdf5_version_tuple
    if built[:2] != running[:2]:
        compiled = ".".join(map(str, built))
        advice = "pip install --force-reinstall --no-cache-dir h5py, or take the other HDF5 out of LD_LIBRARY_PATH"
        return Finding("HDF5", "wrong", f"{found}, which was built for {compiled}: another library was found", advice)
    if h5py.get_config().mpi:
        advice = "If `import h5py` fails under mpirun, it was built for another MPI: pip install --force-reinstall h5py"
        return Finding("HDF5", "note", f"{found}, built with MPI, which is not needed", advice)
    return Finding("HDF5", "ok", f"{found}, without MPI: rank 0 writes, nothing else is needed")


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f"; CUDA_VISIBLE_DEVICES = {visible}"


def _cards() -> list[str]:
    """Name GPUs and driver as the driver's own tool does; nothing if there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.strip().splitlines() if said.returncode == 0 else []
