"""What every method must obey, run over a method file: laws, identities, and the toy worlds they run in.

No law of one data set or result; those are tests or claims.
"""
