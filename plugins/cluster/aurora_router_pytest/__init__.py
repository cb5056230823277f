"""pytest fixtures that start local Aurora-like clusters."""
