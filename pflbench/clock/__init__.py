"""Seconds, after the fact: fleets, the timeline of a finished run, its replay and Gantt chart. Never torch.

Nothing here trains, and no time enters learning.
"""
