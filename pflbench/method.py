"""All that a method file needs, in one place: ``from pflbench.method import ...``.

The contract, one client's vocabulary, arithmetic on named tensors, and the spectra of weights. ``docs/extend.md`` builds
a method in 20 lines.
"""

from pflbench.core import spectrum
from pflbench.core.fields import hyper
from pflbench.core.local import Batch, Feed, Loss, Task, fold, gradient, sgd
from pflbench.core.method import Method, Work
from pflbench.core.tree import State, Tree, axpy, clone, each, select, sq_dist, zeros

__all__ = [
    "Batch",
    "Feed",
    "Loss",
    "Method",
    "State",
    "Task",
    "Tree",
    "Work",
    "axpy",
    "clone",
    "each",
    "fold",
    "gradient",
    "hyper",
    "select",
    "sgd",
    "spectrum",
    "sq_dist",
    "zeros",
]
