"""Where in the spectrum a personal model and the generic one differ: their divergence, band by band.

The bins of every layer, from the lowest radial frequency to the highest, fall into bands of equally many; ``permute``
shuffles each weight's entries first, the same way in both models, so that a band is a random set of bins: the control.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pflbench.core.spectrum import Selection, Shapes, Weights, bins, spectrum

BANDS = 8


class Bands(NamedTuple):
    """Per band, each [bands]. divergence: D(PM || GM) in nats, over all bands their divergence; mass: of the PM's spectrum."""

    divergence: Tensor
    mass: Tensor

    @property
    def relative(self) -> Tensor:
        """Nats per unit of mass: bands that hold more of the spectrum do not count for more."""
        return self.divergence / self.mass


def bands(pm: Weights, gm: Weights, permute: bool = False) -> Bands:
    """The bands of one client. pm, gm: the same weights of both models, [out, ...] each."""
    pm, gm = ([weight.detach().double() for weight in model] for model in (pm, gm))
    shapes: Shapes = tuple((weight.shape[0], weight.shape[1:].numel()) for weight in pm)
    selections = [Selection(shapes, tau=(band + 1) / BANDS, permute=permute) for band in range(BANDS)]
    tables = [bins(selection, pm[0].device, torch.float64) for selection in selections]
    whole = tables[-1]
    p, q = (spectrum(model, whole) for model in (pm, gm))
    each = whole.times * torch.stack([p * (p / q).log() - p + q, p])  # [2, bins]
    upto = torch.stack([table.kept for table in tables])  # [bands, bins], nested
    within = torch.diff(upto, dim=0, prepend=torch.zeros_like(upto[:1]))
    return Bands(*(within @ each.T).T)
