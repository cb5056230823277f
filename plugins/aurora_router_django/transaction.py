"""``run_transaction`` for Django: a transaction that commits once, also when the answer to COMMIT is lost.

The work is done in an ``atomic`` block, on Django's own connection, and Django commits. Underneath,
`aurora_router.Router.run_transaction` has begun the transaction with a mark, and resolves a COMMIT whose answer is lost
before Django gets an answer. The functions of `django.db.transaction.on_commit` are kept until that is known: they run
once the transaction is known to be committed, and in no other case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.transaction import TransactionManagementError

import aurora_router
from aurora_router_django.base import is_current
from aurora_router_django.causal import find_wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from aurora_router_django.base import DatabaseWrapper

T = TypeVar("T")


def run_transaction(
    work: Callable[[], T],
    *,
    using: str = DEFAULT_DB_ALIAS,
    isolation: str | psycopg.IsolationLevel | None = None,
    read_only: bool | None = None,
    deferrable: bool | None = None,
    on_token: Callable[[aurora_router.CommitToken], None] | None = None,
    on_causal: Callable[[aurora_router.CausalToken], None] | None = None,
) -> T:
    """Run ``work()`` in a transaction that commits once.

    It is run again where it is proven not to have committed: `work` may be called several times, with the objects that
    an earlier attempt has changed, so it fetches what it changes. Blocks of ``atomic`` in it are savepoints.

    Args:
        work: does its SQL on the alias, by models or cursors.
        using: the alias.
        isolation: as for `aurora_router.Router.run_transaction`, like the rest.
        read_only: whether it only reads.
        deferrable: whether it waits for a safe snapshot.
        on_token: is given the token of each attempt.
        on_causal: is given the causal token of what was committed, before the functions of ``on_commit`` run; for
            `aurora_router_django.causal.read_after`, also elsewhere.

    Returns:
        What the `work` returned that was committed. The functions of ``on_commit`` have run.

    Raises:
        CommitOutcomeUnknown: it is not known whether it committed; the functions of ``on_commit`` have not run. Or it
            did, they have run, and `on_causal` failed: the text says so.
        TransactionManagementError: a transaction is open already, in a `TestCase` for example; or the work asked for a
            rollback (``set_rollback``).
        ImproperlyConfigured: the alias has another engine.
        Exception: what the work, Django or psycopg raised; it did not commit.
    """
    block = _Block(find_wrapper(using))
    driver = block.getconn()
    try:
        router = aurora_router.Router.of(driver)
    except BaseException:
        block.putconn(driver)
        raise
    block.first = driver
    reported = []

    def report(token: aurora_router.CausalToken) -> None:
        reported.append(token)
        if on_causal is not None:
            on_causal(token)

    try:
        result = router.run_transaction(
            lambda _: block.run(work),
            isolation=isolation,
            read_only=read_only,
            deferrable=deferrable,
            pool=block,
            commit=block.commit,
            on_token=on_token,
            on_causal=None if on_causal is None else report,
        )
    except aurora_router.CommitOutcomeUnknown:
        if reported:  # it is known: it has committed
            block.run_hooks()
        raise
    block.run_hooks()
    return result


class _Block:
    """An alias's connection as a pool of one: each attempt takes it, and gives it back as it was.

    Attributes:
        first: a connection that was taken before the first attempt.
    """

    def __init__(self, wrapper: DatabaseWrapper) -> None:
        if wrapper.in_atomic_block or not wrapper.get_autocommit():
            raise TransactionManagementError(
                "run_transaction begins the transaction itself, and one is open: call it outside of atomic blocks "
                "(ATOMIC_REQUESTS and TestCase are such blocks), with autocommit on"
            )
        self.first: Any = None
        self._wrapper = wrapper
        self._is_committed = False
        self._hooks: list[Any] = []

    def getconn(self) -> Any:
        driver, self.first = self.first, None
        if driver is not None:
            return driver
        wrapper = self._wrapper
        if wrapper.connection is not None and not is_current(wrapper.connection):
            wrapper.close()
        wrapper.set_autocommit(False)  # connects
        return wrapper.connection

    def run(self, work: Callable[[], T]) -> T:
        """Do the work in an ``atomic`` block that leaves the COMMIT to `commit`, since autocommit is off."""
        atomic: Any = transaction.atomic  # untyped: with a name it is a context
        with atomic(using=self._wrapper.alias, savepoint=False):
            result = work()
            if self._wrapper.get_rollback():
                raise TransactionManagementError(
                    "the work asked for a rollback (set_rollback, or an error that it swallowed): nothing is "
                    "committed. Raise an error instead"
                )
        return result

    def commit(self) -> None:
        self._wrapper.commit()
        self._is_committed = True

    def putconn(self, conn: Any) -> None:
        wrapper = self._wrapper
        if self._is_committed:
            self._hooks, wrapper.run_on_commit = wrapper.run_on_commit, []
        if conn.closed or wrapper.connection is not conn:
            wrapper.close()  # forgets what was to run on commit
            return
        wrapper.rollback()  # likewise
        wrapper.set_autocommit(True)

    def run_hooks(self) -> None:
        """Run what ``on_commit`` was given."""
        self._wrapper.run_on_commit, self._hooks = self._hooks, []
        self._wrapper.run_and_clear_commit_hooks()
