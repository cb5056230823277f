"""What is handed out equals what the stock dialect hands out, on containers."""

from tests.sqlalchemy.conftest import *  # noqa: F403
from tests.sqlalchemy.test_same_as_stock import *  # noqa: F403
