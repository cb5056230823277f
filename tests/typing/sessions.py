"""What users of `RoutingSession` write, as the type checkers see it; see `connections.py`."""

from __future__ import annotations

from sqlalchemy import Engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from typing_extensions import assert_type

from aurora_router_sqlalchemy import (
    AsyncRoutingSession,
    RoutingSession,
    create_async_engines,
    create_engines,
    run_transaction,
)


class Base(DeclarativeBase): ...


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)


def blocking() -> None:
    writer, readers = create_engines("postgresql+aurora://h/d", pool_size=5, reader_options={"pool_size": 20})
    assert_type(writer, Engine)
    make = sessionmaker(writer, class_=RoutingSession, readers=readers, expire_on_commit=False)
    with make() as session:
        assert_type(session, RoutingSession)
        assert_type(session.scalars(select(Note)).first(), Note | None)
        session.connection(execution_options={"aurora_role": "reader"})
    with RoutingSession(writer, readers=readers, role="reader") as session:
        assert_type(session.get(Note, 1), Note | None)
    RoutingSession(writer, readers=readers, role="primary")  # type: ignore[arg-type]
    assert_type(run_transaction(make, lambda session: 1), int)


async def awaited() -> None:
    writer, readers = create_async_engines("postgresql+aurora://h/d")
    assert_type(readers, AsyncEngine)
    make = async_sessionmaker(writer, class_=AsyncRoutingSession, readers=readers)
    async with make() as session:
        assert_type(session, AsyncRoutingSession)
        assert_type((await session.scalars(select(Note))).first(), Note | None)
        assert_type(await session.run_sync(lambda inner: inner.get(Note, 1)), Note | None)
