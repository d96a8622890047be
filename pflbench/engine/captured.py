"""Captured graphs: one step of a fold, or a whole short stage, recorded once and replayed.

A recorder turns a function that reads and writes fixed memory into a replay of the same work. On CUDA that is a CUDA
graph; the tests use one that calls the function again, which proves that nothing but the fixed memory is read.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from pflbench.core import tree
from pflbench.core.local import Feed, Step, guarded, plain
from pflbench.core.tree import Tree

WARM = 3  # steps run eagerly before a capture: libraries allocate their workspaces then
SHORTEST = 20  # steps from which capturing one step pays (measured on one H100, design prototype)
WHOLE = 64  # steps up to which a whole stage is captured as one graph

Replay = Callable[[], object]


class Recorder(Protocol):
    """Records ``function``, which takes nothing and writes its results in place, without running it."""

    def capture(self, function: Callable[[], None]) -> Replay: ...

    def warm(self, function: Callable[[], Tree]) -> Tree:
        """Runs ``function`` now, where a capture could follow it."""


class CudaRecorder:
    """CUDA graphs on a side stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm(self, function: Callable[[], Tree]) -> Tree:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            result = function()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return result

    def capture(self, function: Callable[[], None]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            function()
        return graph.replay


def fold_with(recorder: Recorder) -> Callable[[Step, Tree, Feed], Tree]:
    """A runner for ``Feed.run``: the first steps eagerly, then one captured step replayed on every later batch."""

    def run(step: Step, state: Tree, feed: Feed) -> Tree:
        steps = [draws for draws, _ in feed.steps()]
        if len(steps) < SHORTEST:
            return plain(step, state, feed)

        def first() -> Tree:
            started = state
            for draws in steps[:WARM]:
                started = guarded(step, started, feed.make(draws))
            return started

        held = tree.clone(recorder.warm(first))  # batched leaf by leaf under vmap: every leaf has met a client's mask
        slot = tree.clone(steps[WARM])
        replay = recorder.capture(lambda: write(held, guarded(step, held, feed.make(slot))))
        for draws in steps[WARM:]:
            write(slot, draws)
            replay()
        return tree.clone(held)

    return run


class StageGraph:
    """A whole stage as one replayed graph: for stages so short that capturing a step each round would not pay."""

    def __init__(self, recorder: Recorder, function: Callable[[Tree], Tree], inputs: Tree) -> None:
        self._inputs = tree.clone(inputs)
        for _ in range(WARM):
            self._outputs = tree.clone(recorder.warm(lambda: function(self._inputs)))
        self._replay = recorder.capture(lambda: write(self._outputs, function(self._inputs)))

    def __call__(self, inputs: Tree) -> Tree:
        """``function(inputs)`` for inputs of the shapes given at capture."""
        write(self._inputs, inputs)
        self._replay()
        return tree.clone(self._outputs)


def write(into: Tree, values: Tree) -> None:
    """Copies every leaf of ``values`` into the memory of ``into``."""
    tree.each(lambda left, right: left.copy_(right), into, values)
