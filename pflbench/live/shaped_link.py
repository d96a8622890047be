"""A shaped TCP connection over the loopback (gloo), and a tree of tensors as the bytes that travel on it.

A token bucket of one chunk, empty when a frame begins, lets the sender's bytes go at the rate of the link; a chunk leaves
when its last bit is due, so that a payload arrives after exactly its latency and its bits.
"""

import math
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from pflbench.core import tree
from pflbench.core.tree import Tree

CHUNK = 16_384  # bytes that leave at once
_gloo: Any = distributed  # its stubs leave out most of what is used here


class Broken(Exception):
    """The other end of a link is gone or silent."""


class Frame(NamedTuple):
    """What travels: its purpose, a number, when its sender began, uint8[bytes], and when all was here (monotonic clock)."""

    what: int
    number: int
    left: float
    payload: Tensor
    arrived: float


class Link:
    """One end of a TCP connection of its own between the server (end 0) and one client (end 1)."""

    def __init__(self, folder: Path, client: int, end: int, patience_s: float) -> None:
        options = _gloo.ProcessGroupGloo._Options()
        options._devices = [_gloo.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = timedelta(seconds=patience_s)
        meeting = _gloo.FileStore(str(folder / f"client {client}"), 2)
        meeting.set_timeout(options._timeout)
        self._other, self._patience_s = 1 - end, patience_s
        try:
            self._group = _gloo.ProcessGroupGloo(meeting, end, 2, options)
        except RuntimeError:
            raise Broken(f"did not connect within {patience_s:g} s") from None

    def send(
        self,
        what: int,
        number: int = 0,
        payload: Tensor | None = None,
        *,
        bps: float = math.inf,
        latency_s: float = 0.0,
    ) -> None:
        """Sends a frame. The payload takes ``latency_s`` and its bits at ``bps``; no payload, no time."""
        left = time.monotonic_ns()
        pieces = () if payload is None or not len(payload) else torch.split(payload, CHUNK)
        head = torch.tensor([what, number, left, sum(len(piece) for piece in pieces)])
        self._move(self._group.send, head, self._patience_s)
        due = left / 1e9 + latency_s
        for piece in pieces:
            due += 8 * len(piece) / bps
            sleep_until(due)
            self._move(self._group.send, piece, self._patience_s)

    def receive(self, patience_s: float | None = None) -> Frame:
        """The next frame; raises Broken if it does not begin within ``patience_s`` (default: the link's)."""
        head = torch.zeros(4, dtype=torch.int64)
        self._move(self._group.recv, head, patience_s or self._patience_s)
        what, number, left, size = head.tolist()
        payload = torch.empty(size, dtype=torch.uint8)
        for piece in torch.split(payload, CHUNK) if size else ():
            self._move(self._group.recv, piece, self._patience_s)
        return Frame(what, number, left / 1e9, payload, time.monotonic())

    def _move(self, how: Callable[..., Any], tensor: Tensor, seconds: float) -> None:
        """Sends or receives a tensor; gloo reports a broken connection at the call or at the wait."""
        try:
            how([tensor], self._other, 0).wait(timedelta(seconds=seconds))
        except RuntimeError as error:
            silent = "Timed out" in str(error)
            raise Broken(f"no answer within {seconds:g} s" if silent else "the connection is closed") from None


def sleep_until(due: float) -> None:
    """Returns at ``due`` on the monotonic clock, at once if that is over. All processes of a machine share this clock."""
    time.sleep(max(0.0, due - time.monotonic()))


def pack(leaves: Tree) -> Tensor:
    """The bytes of a tree, leaf after leaf: uint8[bytes]."""
    pieces = [leaf.detach().contiguous().reshape(-1).view(torch.uint8) for leaf in tree.flatten(leaves).values()]
    return torch.cat([torch.empty(0, dtype=torch.uint8), *pieces])


def unpack(payload: Tensor, like: Tree) -> Tree:
    """The inverse of ``pack``, for a tree with the structure, shapes and types of ``like``."""
    leaves = tree.flatten(like)
    sizes = [leaf.numel() * leaf.element_size() for leaf in leaves.values()]
    parts = torch.split(payload, sizes) if leaves else ()
    named = zip(leaves.items(), parts, strict=True)
    return tree.like(like, {name: part.clone().view(leaf.dtype).reshape(leaf.shape) for (name, leaf), part in named})
