"""The baselines: one file each, found by its name."""
