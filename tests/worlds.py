"""The small worlds that tests run in, and what they may need of a machine."""

from torch import distributed

from pflbench.laws.toy import SIZES, played, tiny, world

__all__ = ["SIZES", "gloo_on_the_loopback", "played", "tiny", "world"]


def gloo_on_the_loopback() -> bool:
    try:
        return bool(distributed.ProcessGroupGloo.create_device(hostname="127.0.0.1"))
    except (AttributeError, RuntimeError):
        return False
