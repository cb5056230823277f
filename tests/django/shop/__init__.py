"""A small app, as a user would have it."""
