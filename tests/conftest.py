"""As ``pflbench.run`` does before it computes anything."""

import torch

torch.set_num_threads(1)  # must be called, even where it is 1 already: MKL takes another path before the first call
