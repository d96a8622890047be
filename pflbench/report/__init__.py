"""From finished results to figures, tables, claims and one page. This half reads results, and never torch.

What runs experiments lives in ``study``.
"""
