"""60,000 RGB 32x32 photographs, 50,000 to train, 10 classes (Krizhevsky 2009, Learning multiple layers of features).

``pflbench prepare`` takes the official files if they lie in the data root (cifar-10-python.tar.gz, or the folder in it),
and ``uoft-cs/cifar10`` of Hugging Face otherwise. Official files need no preparation: a run reads them as they are, once
their MD5 is the published one.
"""

from pflbench.data import cifar

source, at_hand, files = cifar.of("CIFAR10", "uoft-cs/cifar10", "label", 10)
