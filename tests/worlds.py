"""The small worlds that tests run in."""

from pflbench.toy import SIZES, played, tiny, world

__all__ = ["SIZES", "played", "tiny", "world"]
