"""Many experiments: grids, the workload they make, its forecast and its runs. This half writes results.

What reads and draws them lives in ``report``.
"""
