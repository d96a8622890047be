"""What a result says: accuracies read off its raw counts. Fractions in [0, 1]; never a maximum over test rounds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]
LAST = 10  # evaluations in the mean that is reported beside the last one


def generic_curve(record: Record) -> NDArray[np.float64] | None:
    """[evaluations]: accuracy of the generic model on the official test set; None where a method has no such model."""
    correct = record["curve"]["official"]
    return None if correct is None else np.asarray(correct) / record["clients"]["official"]


def local_curve(record: Record, which: str) -> NDArray[np.float64] | None:
    """[evaluations]: micro accuracy on the clients' local tests of ``which``, "generic" or "personal"."""
    correct = record["curve"][which]
    return None if correct is None else np.asarray(correct).sum(1) / np.sum(record["clients"]["test"])


def selected(record: Record, which: str) -> int | None:
    """Index of the evaluation with the best validation accuracy (the first of equals); None without validation data."""
    correct = record["curve"][f"{which}_validation"]
    return None if correct is None else int(np.argmax(np.asarray(correct).sum(1)))


def summary(curve: NDArray[np.float64] | None) -> dict[str, float] | None:
    """The last evaluation and the mean of the last ten."""
    return None if curve is None else {"last": float(curve[-1]), "last10": float(curve[-LAST:].mean())}


def diverged(record: Record) -> dict[str, int | float | None] | None:
    """None if all numbers stayed finite. Else the first evaluation at which they were not any more, by its ``round``, and
    the last before it: ``finite_round`` and the accuracies there, ``generic`` and ``personal``; None where there is none.
    """
    if record["diverged"] is None:
        return None
    before = record["curve"]["rounds"].index(record["diverged"]) - 1
    curves = {"generic": generic_curve(record), "personal": local_curve(record, "personal")}
    scores = {name: None if curve is None or before < 0 else float(curve[before]) for name, curve in curves.items()}
    return {
        "round": record["diverged"],
        "finite_round": None if before < 0 else record["curve"]["rounds"][before],
        **scores,
    }
