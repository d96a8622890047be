"""Where a result comes from: code, machine, data; no path, host or user name."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from pflbench import __version__
from pflbench.core.measures import Record
from pflbench.data.samples import Samples
from pflbench.engine import engine
from pflbench.experiment.machine import Machine


def processor() -> str:
    """The processor as the system names it; never the name of the host."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


PACKAGES = ("torch", "numpy", "scikit-learn", "safetensors")


def provenance(
    machine: Machine, world: engine.World, samples: Samples, seconds: float, code: Mapping[str, str]
) -> Record:
    """Where a result came from; no path, host or user name."""
    device = world.pixels.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "seconds": round(seconds, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "commit": commit(),
        "code": dict(code),
        "device": f"{device.type}: {name}",
        "engine": world.engine,
        "channels_last": world.engine == "loop" and world.network.channels_last(device),
        "graphs": world.recorder is not None,
        "chunk": world.chunk,
        "threads": world.threads,
        "deterministic": machine.deterministic,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "data": samples.source,
        "memory": [f"{part}: {held}" for part, held in world.held.items()],
    }


def commit() -> str | None:
    """The commit of this code, with ``+`` if the tree differs from it; None outside a checkout of it.

    A repository that happens to surround the installation does not track this file and is not asked for more.
    """
    here = Path(__file__).parent
    try:
        known = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(known, cwd=here, capture_output=True, check=True)
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty.strip() else "")
