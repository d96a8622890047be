"""One experiment on real sockets: server and client processes, shaped links, rehearsal, calibration of the clock.

What it learns is what ``experiment`` learns, to the bit.
"""
