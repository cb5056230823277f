"""What is typed, and what is shown: ``aurora-router cluster …`` and ``aurora-router demo``."""
