"""Spectral co-distillation: a generic model (GM) and personal models (PM) that agree in their Fourier spectra.

Spectral Co-Distillation for Personalized Federated Learning, NeurIPS 2023, arXiv 2401.17124. w: GM. c: {"v": PM}.

    GM phase (contribute):   F_k(w) + lambda_g D(sg s_tau(v) || s_tau(w)), from the received w
    PM phase (personalise):  F_k(v) + lambda_p D(s(v) || sg s(w_ref)), from the client's own v

sg stops the gradient. s(w) is one probability vector over the bins of all layers, s_tau its low frequencies, not
renormalised, and D(p || q) = sum_i [p_i log(p_i / q_i) - p_i + q_i] in nats. The choices behind that:

C1 weights with two dimensions or more; no biases, no norm layers. C2 one 2-D DFT per layer, of the weight as a matrix
(out, fan-in). C3 half plane, every bin counted with its conjugate partner. C4 low means radial and within a layer:
every layer keeps tau of its bins. C5 amplitudes; the phase is ignored. C6 one L1 normalisation for all layers
(``per_layer``: one each, mass 1 / layers). C7 generalised KL, summed. C8 D(PM || GM) in both phases. C9 amplitude
sqrt(|F|^2 + eps^2), eps = 1e-6 rms of the layer's bins, held constant; sums in the precision of the weights. C10
reference spectrum once per phase. C11 every batch. C12 calibrated lambda: ``lam`` times the squared norm of the first
weights, so 1 pulls about as hard as Ditto's 1 (a literal 0.3 is inert). C13 buffers: the experiment's policy.

Departures: the paper's body was not at hand; its meaning is taken from a summary and from the argument order in the
released code. That code's term has no gradient, compares the model with itself, truncates by layer (``prefix``) and
adds a pull of the PM to its start; none of it is kept. v starts at w^0, not at the first received w. C12 is ours.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, cast

from torch import Tensor

from pflbench.method import Feed, Loss, Method, State, Task, Tree, Work, hyper, sgd, spectrum


@dataclass(frozen=True)
class SpectralCoDistillation(Method):
    lam_g: Annotated[
        float, hyper("pull of the GM to the PM's low frequencies", source="our sweep; code: 0.3", ge=0)
    ] = 0.03
    lam_p: Annotated[float, hyper("pull of the PM to the GM's spectrum", source="our sweep; code: 0.4", ge=0)] = 0.3
    scale: Annotated[
        Literal["calibrated", "literal"],
        hyper("unit of lam_g, lam_p: squared norm of the first weights (L2 divergences: 1), or 1", source="ours"),
    ] = "calibrated"
    tau: Annotated[float, hyper("share of the bins in the GM phase; PM: all", source="code", gt=0, le=1)] = 0.4
    personal_epochs: Annotated[
        int | None, hyper("passes over the local data for the PM; None: as many as for the GM", source="code", ge=1)
    ] = None
    layout: Annotated[
        spectrum.Layout,
        hyper("what a DFT is of: the vector of all weights, each layer flattened, or as a matrix", source="code"),
    ] = "matrix"
    content: Annotated[
        Literal["weights", "all"],
        hyper("what is in it: weights with two dimensions or more, or all parameters", source="ours"),
    ] = "weights"
    divergence: Annotated[spectrum.Divergence, hyper("what compares two spectra", source="paper and code")] = "kl"
    keep: Annotated[spectrum.Keep, hyper("which share tau of the bins", source="paper; code: prefix")] = "low"
    normalise: Annotated[spectrum.Normalise, hyper("total that divides the amplitudes; not for L2", source="code")] = (
        "global"
    )
    smoothing: Annotated[
        float, hyper("rounding of an amplitude at zero, as a share of the rms of its DFT", source="ours", gt=0, le=1)
    ] = 1e-6
    reference: Annotated[Literal["received", "own"], hyper("GM that the PM is drawn to", source="code")] = "received"
    permute: Annotated[bool, hyper("shuffle the entries before each DFT: a control", source="ours")] = False

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, {"v": p}

    def work(self, task: Task) -> Work:
        return Work(contribute=task.epochs, personalise=self.personal_epochs or task.epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        upload = sgd(self._near(task, c["v"], "gm"), w, feed, task)
        return upload, {**c, "own": upload} if self.reference == "own" else c

    def personalise(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        w_ref = c["own"] if self.reference == "own" else w
        return {"v": sgd(self._near(task, w_ref, "pm"), c["v"], feed, task)}

    def generic(self, w: Tree) -> State | None:
        return cast(State, w)

    def deploy(self, w: Tree, c: Tree) -> State | None:
        return cast(State, c["v"])

    def _near(self, task: Task, reference: State, trains: spectrum.Trains) -> Loss:
        lam, tau = (self.lam_g, self.tau) if trains == "gm" else (self.lam_p, 1.0)
        if lam == 0:
            return task.loss
        names = task.weights if self.content == "weights" else task.parameters
        fixed = [reference[name] for name in names]
        selection = spectrum.Selection(tuple(tuple(w.shape) for w in fixed), tau, self.keep, self.permute, self.layout)
        apart = spectrum.distance(fixed, selection, self.divergence, trains, self.normalise, self.smoothing)
        unit: Tensor | float = 1.0
        if self.scale == "calibrated" and not self.divergence.endswith("_l2"):
            unit = spectrum.calibrated([task.start[n] for n in names], selection, self.normalise, self.smoothing)
        return lambda p, batch: task.loss(p, batch) + lam * unit * apart([p[name] for name in names])
