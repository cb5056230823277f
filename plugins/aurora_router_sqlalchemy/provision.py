"""What SQLAlchemy's test suite has to know of a database before it tests a dialect: PostgreSQL's own answers.

SQLAlchemy imports this module itself, by its name in the dialect's package, and only when it tests.
"""

from __future__ import annotations

import sqlalchemy.dialects.postgresql.provision  # noqa: F401 - registers what holds for PostgreSQL
