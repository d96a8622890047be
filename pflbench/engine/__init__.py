"""A whole cohort: rounds, evaluation, captured graphs, placement in memory. With ``laws``, all that knows many clients.

No names, files, seconds or reports: a world comes in, a federation and counts go out.
"""
