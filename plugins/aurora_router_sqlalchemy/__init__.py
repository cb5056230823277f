"""SQLAlchemy dialects ``postgresql+aurora`` (sync and async): the stock psycopg dialects on the right instance."""
