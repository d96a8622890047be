"""One experiment: its fields and address, what its names stand for, its world, its run and its result on disk.

What takes several experiments belongs in ``study``.
"""
