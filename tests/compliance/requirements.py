"""What PostgreSQL can do, for SQLAlchemy's suite.

It is said of the database, and of SQLAlchemy's version, never of the dialect that is tested.

The suite's own class assumes little of a database; each name below is a feature that PostgreSQL 15 and later has. A
name that one version of SQLAlchemy does not know is without effect there.
"""

from __future__ import annotations

import sqlalchemy
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

HAS = """
create_table_as create_temp_table_as table_ddl_if_exists index_ddl_if_exists uuid_data_type
unique_constraints_reflect_as_index table_value_constructor deferrable_fks boolean_col_expressions
nullsordering intersect except_ window_functions window_range window_range_numeric window_range_non_numeric
ctes ctes_with_update_delete ctes_with_values ctes_on_dml tuple_in views cross_schema_fk_reflection
foreign_key_constraint_name_reflection implicit_default_schema default_schema_name_switch reflects_pk_names
reflect_tables_no_columns temp_table_comment_reflection comment_reflection comment_reflection_full_unicode
constraint_comment_reflection column_collation_reflection schema_create_delete
foreign_key_constraint_option_reflection_ondelete fk_constraint_option_reflection_ondelete_restrict
fk_constraint_option_reflection_ondelete_noaction foreign_key_constraint_option_reflection_onupdate
fk_constraint_option_reflection_onupdate_restrict temp_table_names has_temp_table temporary_views
create_or_replace_view index_reflects_included_columns indexes_with_expressions
reflect_indexes_with_expressions inline_check_constraint_reflection check_constraint_reflection unicode_ddl
datetime_interval datetime_literals datetime_timezone time_timezone timestamp_microseconds datetime_historic
date_historic autocommit skip_autocommit_rollback isolation_level array_type json_type
precision_numerics_enotation_small precision_numerics_many_significant_digits server_defaults
expression_server_defaults aggregate_order_by precision_numerics_retains_significant_digits infinity_floats
float_or_double_precision_behaves_generically savepoints two_phase_transactions update_from delete_from
mod_operator_as_percent_sign percent_schema_names order_by_label_with_expression computed_columns
computed_columns_stored computed_columns_reflect_persisted supports_distinct_on identity_columns
identity_columns_standard regexp_match regexp_replace fetch_first fetch_ties fetch_no_order_by
fetch_offset_with_options fetch_expression json_deserializer_binary materialized_views
supports_bitwise_or supports_bitwise_and supports_bitwise_not supports_bitwise_xor supports_bitwise_shift
""".split()  # noqa: SIM905 - a table of names is read more easily without its quotes


SERIES = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:2])


def _open(_):
    return exclusions.open()


class Requirements(SuiteRequirements):
    """PostgreSQL's features."""

    @property
    def async_dialect(self):
        """Whether the dialect under test is asynchronous."""
        return exclusions.only_if(lambda config: config.db.dialect.is_async)

    @property
    def reflect_table_options(self):
        """SQLAlchemy 2.0 has no reflection of PostgreSQL's options of tables."""
        return exclusions.only_if(lambda: SERIES >= (2, 1), "not in SQLAlchemy 2.0")

    @property
    def computed_columns_default_persisted(self):
        """A computed column is stored if nothing is said: 2.0 always says so, 2.1 leaves it to the server."""
        return exclusions.only_if(
            lambda config: SERIES < (2, 1) or config.db.dialect.server_version_info < (18,),
            "PostgreSQL 18 computes them",
        )

    def get_isolation_levels(self, config):
        """The levels that PostgreSQL has, and the one that it starts with."""
        # in the order in which the dialects' messages have them
        levels = [
            "AUTOCOMMIT",
            "READ COMMITTED",
            "READ UNCOMMITTED",
            "REPEATABLE READ",
            "SERIALIZABLE",
        ]
        return {"default": "READ COMMITTED", "supported": levels}


for name in HAS:
    setattr(Requirements, name, property(_open))
