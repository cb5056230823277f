"""IAM tokens: the keys that sign them, the rules by which they count, and how PostgreSQL asks about them."""
