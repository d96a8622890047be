"""The mathematics of one client, and the small tools that everything rests on: fields, streams, files, the registry.

Nothing here knows of a second client, a data set, a device or a clock.
"""
