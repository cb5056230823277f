"""Storage nodes in processes of their own, here or on other hosts."""
