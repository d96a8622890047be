"""The data sets: one file each, found by its name (``pflbench.data.datasets`` says what it must define).

A name with a leading underscore is a helper. What several of them share lives one folder up.
"""
