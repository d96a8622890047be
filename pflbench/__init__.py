"""pflbench: a reproducibility benchmark suite for personalised federated learning."""

__version__ = "0.1.0"
