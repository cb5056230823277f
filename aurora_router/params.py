"""The keywords of ``connect`` for type checkers: what libpq takes, and every option of ours.

A misspelled keyword is an error of mypy and pyright. libpq's keys are those of PostgreSQL 18; one that an older libpq
does not know is refused when connecting, by libpq itself. A test compares both lists with what is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.abc import AdaptContext, ConnParam

    from aurora_router.credentials import Provider
    from aurora_router.model.causal_token import CausalToken
    from aurora_router.model.endpoint import WantedRole
    from aurora_router.policy.hosts import HostPort, InstanceHosts
    from aurora_router.policy.options import (
        Balance,
        BalanceFunction,
        CausalMethod,
        OutcomeMethod,
        ReaderFallback,
        TlsDirect,
    )


class LibpqParams(TypedDict, total=False):
    """Connection parameters of libpq."""

    service: ConnParam
    servicefile: ConnParam
    user: ConnParam
    password: ConnParam
    passfile: ConnParam
    channel_binding: ConnParam
    connect_timeout: ConnParam
    dbname: ConnParam
    host: ConnParam
    hostaddr: ConnParam
    port: ConnParam
    client_encoding: ConnParam
    options: ConnParam
    application_name: ConnParam
    fallback_application_name: ConnParam
    keepalives: ConnParam
    keepalives_idle: ConnParam
    keepalives_interval: ConnParam
    keepalives_count: ConnParam
    tcp_user_timeout: ConnParam
    sslmode: ConnParam
    sslnegotiation: ConnParam
    sslcompression: ConnParam
    sslcert: ConnParam
    sslkey: ConnParam
    sslcertmode: ConnParam
    sslpassword: ConnParam
    sslrootcert: ConnParam
    sslcrl: ConnParam
    sslcrldir: ConnParam
    sslsni: ConnParam
    requirepeer: ConnParam
    require_auth: ConnParam
    min_protocol_version: ConnParam
    max_protocol_version: ConnParam
    ssl_min_protocol_version: ConnParam
    ssl_max_protocol_version: ConnParam
    gssencmode: ConnParam
    krbsrvname: ConnParam
    gsslib: ConnParam
    gssdelegation: ConnParam
    replication: ConnParam
    target_session_attrs: ConnParam
    load_balance_hosts: ConnParam
    scram_client_key: ConnParam
    scram_server_key: ConnParam
    oauth_issuer: ConnParam
    oauth_client_id: ConnParam
    oauth_client_secret: ConnParam
    oauth_scope: ConnParam
    sslkeylogfile: ConnParam


class ConnectParams(LibpqParams, total=False):
    """Connection parameters of libpq, and our options; None counts as not given."""

    credentials: Provider | None
    balance: BalanceFunction | str | None
    aurora_profile: str | None
    aurora_role: WantedRole | str | None
    aurora_instance: str | None
    aurora_balance: BalanceFunction | Balance | str | None
    aurora_weights: Mapping[str, int] | str | None
    aurora_max_lag: float | str | None
    aurora_zones: Sequence[str] | str | None
    aurora_zone_map: Mapping[str, str] | str | None
    aurora_tls_direct: TlsDirect | str | None
    aurora_rebalance: bool | str | None
    aurora_reader_fallback: ReaderFallback | str | None
    aurora_instance_host: InstanceHosts | Mapping[str, str] | str | None
    aurora_credentials: str | None
    aurora_attributes: str | None
    aurora_rds_endpoint: str | None
    aurora_patroni: str | Sequence[str] | None
    aurora_patroni_login: str | None
    aurora_patroni_ca: str | None
    aurora_patroni_cert: str | None
    aurora_iam_host: HostPort | str | None
    aurora_secret: str | None
    aurora_secret_endpoint: str | None
    aurora_aws_region: str | None
    aurora_aws_profile: str | None
    aurora_env_user: str | None
    aurora_env_password: str | None
    aurora_password_file: str | None
    aurora_dns: HostPort | str | None
    aurora_trust_cname: bool | str | None
    aurora_source: Sequence[str] | str | None
    aurora_cluster: str | None
    aurora_connect_timeout: float | str | None
    aurora_failover_timeout: float | str | None
    aurora_dns_timeout: float | str | None
    aurora_quarantine: float | str | None
    aurora_refresh: float | str | None
    aurora_monitor: bool | str | None
    aurora_auto_pause: float | str | None
    aurora_hang_grace: float | str | None
    aurora_ping_timeout: float | str | None
    aurora_outcome: OutcomeMethod | str | None
    aurora_outcome_terminate: bool | str | None
    aurora_transaction_attempts: int | str | None
    aurora_transaction_timeout: float | str | None
    aurora_causal: CausalMethod | str | None
    aurora_causal_wait: float | str | None


class ReadParams(ConnectParams, total=False):
    """Keywords of one connect: those of every connect, and the causal token of this one."""

    after: CausalToken | None


class RouterParams(ConnectParams, total=False):
    """Keywords of a router: those of each connection that it makes, psycopg's own arguments included."""

    autocommit: bool
    prepare_threshold: int | None
    context: AdaptContext | None
    row_factory: Any
    cursor_factory: Any
