"""The contract of a federated method: one round of mathematics at one client, as a frozen record of pure functions.

Letters: ``w`` is what the server holds, ``c`` what one client holds, ``p`` a model state, ``feed`` this client's batches
of this stage. A stored state is a value, never an alias; nothing is assigned to ``self``. The page
``docs/extend.md`` builds one in 20 lines.
"""

from typing import NamedTuple

from pflbench.core.local import Feed, Task
from pflbench.core.tree import State, Tree


class Work(NamedTuple):
    """Passes over the local data per stage: the engine draws them, the clock charges for them.

    contribute: before the upload. personalise: once the upload is on its way. adapt: at an evaluation only, on a copy.
    gradients: how many the contribute stage takes per batch.
    """

    contribute: int
    personalise: int = 0
    adapt: int = 0
    gradients: int = 1


class Method:
    """Base of all methods; a subclass is a frozen dataclass whose fields are its documented hyper-parameters."""

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        """``(w, c)`` before round 0: the server's state and one client's, from one initial model ``p``."""
        raise NotImplementedError

    def work(self, task: Task) -> Work:
        """Passes over the local data, per stage."""
        return Work(contribute=task.epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        """``(upload, c)``: what must be finished before the client may send."""
        raise NotImplementedError

    def personalise(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        """``c``: what may still run once the upload is on its way. ``w`` is the state received in this round."""
        return c

    def merge(self, w: Tree, mean: Tree) -> Tree:
        """The server's next state, given the weighted mean upload."""
        return mean

    def adapt(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        """``c`` for this evaluation only (fine-tuning before deployment); never stored."""
        return c

    def generic(self, w: Tree) -> State | None:
        """GM: the one model that all clients share; None when the server never holds a whole one."""
        return None

    def received(self, w: Tree, c: Tree) -> State | None:
        """GM as one client holds it: differs from ``generic`` only where batch statistics stay at the client."""
        return self.generic(w)

    def deploy(self, w: Tree, c: Tree) -> State | None:
        """PM: the model this client would use; None where a method has no model of its own for a client."""
        raise NotImplementedError
