"""Networks as plain ``nn.Module``, by name, and batch normalisation as a part of a state.

What trains, evaluates or loads them lives elsewhere.
"""
