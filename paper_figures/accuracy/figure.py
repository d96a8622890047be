"""The accuracy table: GM and PM of every method in every setting, and which differences the seeds support."""

from pflbench.report.accuracy import latex, plot, table

__all__ = ["latex", "plot", "table"]
