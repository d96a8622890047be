"""How an experiment is run: a machine. Changes no number beyond rounding."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pflbench.core.files import expanded


@dataclass(frozen=True)
class Machine:
    """Where and how; changes no number beyond rounding.

    threads: clients computed at a time on a CPU; None: as many as there are cores that this process may use. chunk: most
    clients in one vmapped call. graphs: capture CUDA graphs on a GPU. deterministic: only kernels that give the same bits
    again. place_data, place_clients: where data and client states lie; auto: where there is room. checkpoint_s: seconds
    between checkpoints, more where one takes long; 0: one after every round.
    """

    device: str = "auto"
    engine: Literal["auto", "loop", "vmap"] = "auto"
    threads: int | None = None
    chunk: int = 64
    graphs: bool = True
    deterministic: bool = True
    data_root: Path | None = None
    results: Path = Path("results")
    place_data: Literal["auto", "device", "host"] = "auto"
    place_clients: Literal["auto", "device", "host", "file"] = "auto"
    keep_models: bool = False
    checkpoint_s: float = 30.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "results", expanded(Path(self.results)))
        if self.data_root is not None:
            object.__setattr__(self, "data_root", expanded(Path(self.data_root)))

    @property
    def cores(self) -> int:
        """Clients computed at a time on a CPU."""
        return self.threads or usable_cores()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
