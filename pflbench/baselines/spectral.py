"""Spectral co-distillation: a generic model (GM) and personal models (PM) that agree in their Fourier spectra.

Spectral Co-Distillation for Personalized Federated Learning, NeurIPS 2023, arXiv 2401.17124. w: GM. c: {"v": PM}.

    GM phase (contribute):   F_k(w) + lambda_g D(sg s_tau(v) || s_tau(w)), from the received w
    PM phase (personalise):  F_k(v) + lambda_p D(s(v) || sg s(w_ref)), from the client's own v

sg stops the gradient. s(w) is one probability vector over the bins of a Fourier transform of the weights, s_tau its low
frequencies, not renormalised, and D(p || q) = sum_i [p_i log(p_i / q_i) - p_i + q_i] in nats. w_ref: the client's own GM,
just trained. The choices behind that, of which the fields of the same names are other readings:

C1 ``content``: weights with two dimensions or more; no biases, no norm layers. C2 ``layout``: one real DFT of all weights
end to end, in the order of the state. C3 half of the spectrum, every bin counted with its conjugate partner. C4 low means
the lowest tau of the bins; where every layer has a DFT of its own, radial and within the layer. C5 amplitudes; the phase
is ignored. C6 ``normalise``: one L1 normalisation for all bins. C7 generalised KL, summed. C8 ``divergence``: D(PM || GM)
in both phases. C9 ``smoothing``: amplitude sqrt(|F|^2 + eps^2), eps a share of the rms of the DFT's bins, differentiated
like the rest; the smallest share that keeps training from chaos. Sums in the precision of the weights. C10 reference
spectrum once per phase. C11 every batch. C12 ``scale``: ``lam`` times the squared norm of the first weights, so 1 pulls
about as hard as Ditto's 1 (a literal 0.3 is inert). C13 buffers: the experiment's policy.

Departures: the paper's body was not at hand; its meaning is taken from second-hand accounts and from the released code, and
the page says which choice rests on what. That code's term has no gradient, compares the model with itself, takes a 2-D DFT
per layer of which it keeps the first layers (``prefix``), and adds a pull of the PM to its start; none of it is kept.
v starts at w^0, not at the first received w. C9 and C12 are ours.
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
    lam_p: Annotated[float, hyper("pull of the PM to the GM's spectrum", source="our sweep; code: 0.4", ge=0)] = 1.0
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
        hyper(
            "what a DFT is of: all weights end to end, each flattened, or each as a matrix",
            source="accounts of the paper; code: matrix",
        ),
    ] = "vector"
    content: Annotated[
        Literal["weights", "all"],
        hyper("what is in it: weights with two dimensions or more, or all parameters", source="code"),
    ] = "weights"
    divergence: Annotated[spectrum.Divergence, hyper("what compares two spectra", source="paper and code")] = "kl"
    keep: Annotated[spectrum.Keep, hyper("which share tau of the bins", source="paper; code: prefix")] = "low"
    normalise: Annotated[spectrum.Normalise, hyper("total that divides the amplitudes; not for L2", source="code")] = (
        "global"
    )
    smoothing: Annotated[
        float,
        hyper("rounding of an amplitude at zero, as a share of the rms of its DFT", source="our study", gt=0, le=1),
    ] = 0.2
    reference: Annotated[
        Literal["received", "own"], hyper("GM that the PM is drawn to", source="accounts of the paper; code: received")
    ] = "own"
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
