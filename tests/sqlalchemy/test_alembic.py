"""Alembic migrates through the URL, by its usual ``env.py``, sync and async."""

from __future__ import annotations

import io
import secrets

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

pytestmark = pytest.mark.cluster

SYNC = """
from alembic import context
from sqlalchemy import engine_from_config, pool

engine = engine_from_config(context.config.get_section("alembic"), prefix="sqlalchemy.", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, version_table=context.config.get_main_option("version_table"))
    with context.begin_transaction():
        context.run_migrations()
"""
ASYNC = """
import asyncio
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import async_engine_from_config

def migrate(connection):
    context.configure(connection=connection, version_table=context.config.get_main_option("version_table"))
    with context.begin_transaction():
        context.run_migrations()

async def main():
    section = context.config.get_section("alembic")
    engine = async_engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()

asyncio.run(main())
"""
FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "1", None
def upgrade():
    op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(20)))
    op.create_index("ix_{table}", "{table}", ["name"])
def downgrade():
    op.drop_table("{table}")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "2", "1"
def upgrade():
    op.add_column("{table}", sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()))
    with op.batch_alter_table("{table}") as batch:
        batch.alter_column("name", nullable=False)
def downgrade():
    op.drop_column("{table}", "at")
"""


@pytest.fixture(params=[SYNC, ASYNC], ids=["sync", "async"])
def migrations(request, aurora_cluster, table, tmp_path):
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(request.param)
    for number, text in ((1, FIRST), (2, SECOND)):
        (tmp_path / "versions" / f"{number}.py").write_text(text.format(table=table))
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", aurora_cluster.url().replace("%", "%%"))
    config.set_main_option("version_table", f"alembic_{secrets.token_hex(6)}")
    return config


def test_a_migration_up_and_down(migrations, aurora_cluster, table):
    engine = sa.create_engine(aurora_cluster.url(), poolclass=sa.pool.NullPool)
    command.upgrade(migrations, "head")
    columns = {each["name"]: each["nullable"] for each in sa.inspect(engine).get_columns(table)}
    assert columns == {"id": False, "name": False, "at": True}
    assert [each["name"] for each in sa.inspect(engine).get_indexes(table)] == [f"ix_{table}"]
    command.downgrade(migrations, "1")
    assert "at" not in {each["name"] for each in sa.inspect(engine).get_columns(table)}
    command.downgrade(migrations, "base")
    assert not sa.inspect(engine).has_table(table)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"drop table {migrations.get_main_option('version_table')}")
