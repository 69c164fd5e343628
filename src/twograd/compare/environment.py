"""The stamp of the machine and software that results were found on; without names of hosts, users or their folders.

What flows in: the settings of a run. What flows out: a mapping of sections, for the report's table and for
``machine_info`` and ``commit_info`` in the results file. Read :func:`stamp`.
"""

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from twograd import __version__
from twograd.compare.results import Settings

DISTRIBUTIONS = (
    *("jax", "jaxlib", "numpy", "scipy", "matplotlib", "optax", "scikit-learn"),
    *("torch", "autograd", "pytensor", "numba", "dezero", "tinygrad", "tensorflow", "tensorflow-cpu"),
)

VARIABLE = re.compile(
    r"JAX_\w+|XLA_FLAGS|(OMP|MKL|OPENBLAS|NUMBA)_NUM_THREADS|OPENBLAS_(CORETYPE|THREAD_TIMEOUT)|OMP_WAIT_POLICY"
    r"|GOMP_SPINCOUNT|TF_NUM_(INTRA|INTER)OP_THREADS|TF_ENABLE_ONEDNN_OPTS|PYTENSOR_FLAGS|DEV"
)


def stamp(settings: Settings) -> dict[str, Any]:
    """All sections: ``versions``, ``machine``, ``devices``, ``options``, ``commit``, ``command``."""
    return {
        "versions": versions(),
        "machine": machine(),
        "devices": devices(settings.device),
        "options": options(),
        "commit": commit(),
        "command": without_private_paths(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


def versions() -> dict[str, str]:
    """Python, twograd, and whichever of :data:`DISTRIBUTIONS` are installed."""
    found = {"python": platform.python_version(), "twograd": __version__}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """pytest-benchmark's ``machine_info``, as far as it says nothing about whose machine it is."""
    return {
        "node": "",
        "processor": platform.processor(),
        "machine": platform.machine(),
        "system": platform.system(),
        "release": platform.release(),
        "python_implementation": platform.python_implementation(),
        "python_version": platform.python_version(),
        "cpu": {"brand_raw": cpu_model(), "count": os.cpu_count() or 0},
        "usable_cores": usable_cores(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def cpu_model() -> str:
    """As the system calls it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0


def devices(device: str) -> dict[str, Any]:
    """What JAX computes on, with the device's memory where it tells it (a GPU does, the CPU does not)."""
    first, *others = jax.devices(device)
    memory = (first.memory_stats() or {}).get("bytes_limit")
    found = {"device": device, "kind": first.device_kind, "count": 1 + len(others), "platform": first.platform}
    return found | ({"memory_bytes": memory} if memory else {})


def options() -> dict[str, Any]:
    """Settings of JAX and of the threads that change timings or rounding."""
    settings = ("jax_enable_x64", "jax_default_matmul_precision")
    found: dict[str, Any] = {name: getattr(jax.config, name) for name in settings}
    if "torch" in sys.modules:
        found["torch_threads"] = sys.modules["torch"].get_num_threads()
    if "tensorflow" in sys.modules:
        found["tensorflow_threads"] = sys.modules["tensorflow"].config.threading.get_intra_op_parallelism_threads()
    for name in sorted(filter(VARIABLE.fullmatch, os.environ)):
        found[name] = without_private_paths(os.environ[name])
    return found


def commit() -> dict[str, Any]:
    """pytest-benchmark's ``commit_info`` of the checkout that this package lies in; empty for an installed one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return {}
    revision = _git(root, "rev-parse", "HEAD")
    if revision is None:
        return {}
    return {"id": revision, "time": _git(root, "log", "-1", "--format=%cI"), "dirty": bool(_git(root, "status", "-s"))}


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """All of a stamp as pairs of names and texts, nested names joined by dots; what is empty is left out."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flat(item, f"{name}.{key}" if name else str(key))]
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))]
    return [(name, {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value))]


def without_private_paths(text: str) -> str:
    """``text`` with home folders as ``~``."""
    text = text.replace(str(Path.home()), "~") if Path.home() != Path("/") else text
    return re.sub(r"/(home|Users)/[^/\s:]+|/root\b", "~", text)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return ""
