"""IAM tokens: the keys that sign them, the rules by which they count, and how PostgreSQL asks about them."""

LONGEST_SECONDS = 900.0
"""How long a token counts at most, as on RDS. It is here because the options need it, also without IAM."""
