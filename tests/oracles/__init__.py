"""The methods again, each written from its equations: stateful, one client after another, plain PyTorch.

They import nothing of the package. What they share with it is data: samples, first weights, cohorts and batch orders.
"""
