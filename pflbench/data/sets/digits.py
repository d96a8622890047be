"""1,797 grey 8x8 images of handwritten digits, 10 classes; they come with scikit-learn, so nothing is downloaded.

The test part of UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998). Pixels 0 to 16 become
0 to 255 in integer arithmetic, (255 v + 8) // 16. Split once and for all, without a seed: of the images sorted by
class, file order kept within a class, every fifth is for testing: 1,437 to train, 360 to test, stratified.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from pflbench.data.samples import Samples, moments


def load(root: Path | None) -> Samples:
    """uint8[1437 and 360, 1, 8, 8]; ``root`` is not needed."""
    bunch = load_digits()
    images = torch.from_numpy(((bunch.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.argsort(labels, stable=True)
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[order[::5]] = True
    source = "scikit-learn load_digits, UCI optical recognition of handwritten digits, test part"
    train_x = images[~test]
    mean, std = moments(train_x)
    return Samples("digits", train_x, labels[~test], images[test], labels[test], 10, mean, std, source)
