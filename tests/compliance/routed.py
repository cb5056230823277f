"""A pytest plugin that makes each `Session` of SQLAlchemy's own ORM tests a `RoutingSession`.

The readers' engine is another one of the same database: it has the events and the pool of the tests' engine, so that
statements are counted and checked wherever they go. What is read before a transaction writes runs on a connection of
its own, as it does on a cluster.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionstart():
    """Put the class in, before the tests' modules are imported; SQLAlchemy's own plugin is set up by now."""
    import sqlalchemy.orm
    from sqlalchemy import Engine

    from aurora_router_sqlalchemy import RoutingSession

    made = WeakKeyDictionary()

    class Session(RoutingSession):
        """Routes if it is bound to an engine of the tests' database."""

        @property
        def readers(self):
            bind = self.bind
            if not isinstance(bind, Engine) or bind.dialect.name != "postgresql":
                return None
            if bind not in made:
                made[bind] = bind.execution_options()
            return made[bind]

        @readers.setter
        def readers(self, value):
            pass

    Session.__module__, Session.__qualname__ = "sqlalchemy.orm.session", "Session"
    sqlalchemy.orm.Session = sqlalchemy.orm.session.Session = Session
    sqlalchemy.orm.sessionmaker.__init__.__kwdefaults__["class_"] = Session


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Listen again where the test before removed every listener of every session, as some do in their teardown."""
    from sqlalchemy import event

    from aurora_router_sqlalchemy.routing_session import LISTENERS, RoutingSession

    for name, listener in LISTENERS.items():
        if not event.contains(RoutingSession, name, listener):
            event.listen(RoutingSession, name, listener)
