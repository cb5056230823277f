"""``aurora-router doctor``: what is set up wrongly, found from facts that are gathered first.

Theory. `gathering` does all of the I/O and returns one plain value, `facts.Facts`. `checks` is a table of pure
functions from those facts to problems: a check is one entry, with a test that needs no server. What could not be found
out is None in the facts, and no check concludes anything from None. So a fault in one place (no address, no login) is
reported once, and not again by every check that would have needed what is behind it.
"""
