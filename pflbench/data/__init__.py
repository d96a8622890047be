"""Data sets, partition schemes and splits: who trains, is tested and is validated on what.

Images end here as uint8 tensors and index lists; what makes batches of them lives in ``engine``.
"""
