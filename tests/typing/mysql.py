"""What users of `aurora_router_mysql` write, as the type checkers see it; never run."""

from __future__ import annotations

from typing_extensions import assert_type

import aurora_router_mysql


def retries() -> object:
    assert_type(aurora_router_mysql.RETRYABLE, tuple[type[Exception], ...])
    try:
        return aurora_router_mysql.connect(host="h")
    except aurora_router_mysql.RETRYABLE as error:
        assert_type(error, Exception)
        return error
