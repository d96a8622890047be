"""Chance enters as data: one independent random stream per name.

A stream is hashed from what it is for. Seeds are never added up, and the method's name is in no stream: every method
meets the same split, first weights, cohorts and batch orders.
"""

import hashlib

import numpy as np


def seed_of(*names: str | int) -> int:
    """A 63-bit seed hashed from ``names``; ``("a", 12)`` and ``("a1", 2)`` differ."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*names: str | int) -> np.random.Generator:
    """A fresh numpy generator for ``names``, for example ``stream(seed, "batches", round, client, stage)``."""
    return np.random.Generator(np.random.PCG64(seed_of(*names)))
