"""TLS: whether it is there, is verified, and will be so tomorrow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aurora_router.doctor.facts import Wire
from aurora_router.doctor.finding import Check, error, join_short, warning
from aurora_router.doctor.reason import Reason, reason_of
from aurora_router.model.endpoint import EndpointKind, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts, Server
    from aurora_router.doctor.finding import Problem

DAYS = 30
"""An end that is nearer is reported."""
_LOCAL = ("localhost", "127.", "::1")
BUNDLE = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"


def _is_local(server: Server) -> bool:
    """Whether traffic stays on this machine by the name that was given, which then needs no TLS."""
    return server.host is None or server.host.startswith(_LOCAL)


def _is_aws(server: Server) -> bool:
    partition = parse_endpoint(server.host or "").partition
    return partition is not None and partition != "test"


def _find_failed(facts: Facts, reason: Reason) -> list[Server]:
    return [each for each in facts.servers if each.failure is not None and reason_of(each.failure) is reason]


def _find_missing(facts: Facts) -> Iterator[Problem]:
    if refused := _find_failed(facts, Reason.NO_TLS):
        yield error(
            f"sslmode={facts.setup.sslmode}, and {join_short(each.name for each in refused)} has no TLS",
            "Connects fail at once.",
            "Turn TLS on at the server (ssl = on); a pooler in between needs client_tls_sslmode.",
        )
    bare = [each for each in facts.servers if each.wire is Wire.PLAIN and each.session is not None and _is_aws(each)]
    if bare:
        yield warning(
            f"{join_short(each.name for each in bare)} is connected without TLS",
            "Passwords and data are readable on the network.",
            f"Set sslmode=verify-full and sslrootcert to {BUNDLE}.",
        )


def _find_roots(facts: Facts) -> Iterator[Problem]:
    setup = facts.setup
    if not setup.has_roots or _find_failed(facts, Reason.NO_ROOTS):
        yield error(
            f"the file of trusted roots {setup.roots or '(~/.postgresql/root.crt)'} is missing",
            "No certificate can be verified, so connects with sslmode=verify-ca or verify-full fail.",
            f"Set sslrootcert to a file with the roots; for Amazon Aurora: {BUNDLE}.",
        )
        return
    if _find_failed(facts, Reason.WEAK_MODE):
        yield error(
            f"sslrootcert=system with sslmode={setup.sslmode}",
            "libpq refuses it before it dials: public roots sign certificates for everyone, so the name has to count.",
            "Set sslmode=verify-full, or sslrootcert to a file.",
        )
    if untrusted := _find_failed(facts, Reason.UNTRUSTED):
        at_aws = setup.roots == "system" and any(map(_is_aws, untrusted))
        yield error(
            f"no root in sslrootcert={setup.roots or '~/.postgresql/root.crt'} has signed the certificate of "
            f"{join_short(each.name for each in untrusted)}",
            "Connects fail: the server is not the one that is meant, or the file has the wrong roots."
            + (" Instances of RDS have roots of their own, which the system does not know." if at_aws else ""),
            f"Set sslrootcert to the roots of this server; for Amazon Aurora: {BUNDLE}; for RDS Proxy: system.",
        )


def _find_names(facts: Facts) -> Iterator[Problem]:
    for each in _find_failed(facts, Reason.NAME):
        names = join_short(each.certificate.names) if each.certificate is not None else "others"
        yield error(
            f"the certificate of {each.name} is for {names}, not for {each.host}",
            "sslmode=verify-full refuses it.",
            "Give one of these names as the host; for an alias of your own set aurora_trust_cname=on; for a tunnel "
            "give the real name as host and set aurora_instance_host.",
        )


def _find_ends(facts: Facts) -> Iterator[Problem]:
    over: list[Server] = []
    soon: list[Server] = []
    for each in facts.servers:
        if each.certificate is not None:
            left = each.certificate.ends - facts.now
            (over if left < 0 else soon if left < DAYS * 86400 else []).append(each)
    renew = "Renew it; on Amazon RDS: `aws rds modify-db-instance --ca-certificate-identifier rds-ca-rsa2048-g1`."
    if over or _find_failed(facts, Reason.EXPIRED):
        gone = over or _find_failed(facts, Reason.EXPIRED)
        fails = facts.setup.sslmode in {"verify-ca", "verify-full"}
        yield (error if fails else warning)(
            f"the certificate of {join_short(each.name for each in gone)} has expired{_when(gone)}",
            "Connects fail." if fails else "It cannot be verified.",
            renew,
        )
    if soon:
        yield warning(
            f"the certificate of {join_short(each.name for each in soon)} expires{_when(soon)}",
            "From then on, verified connects fail.",
            renew,
        )


def _when(servers: list[Server]) -> str:
    ends = [each.certificate.ends for each in servers if each.certificate is not None]
    return f" on {time.strftime('%Y-%m-%d', time.gmtime(min(ends)))}" if ends else ""


def _find_unverified(facts: Facts) -> Iterator[Problem]:
    mode = facts.setup.sslmode
    if mode == "verify-full":
        return
    there = [each for each in facts.servers if each.wire is Wire.TLS and each.session and not _is_local(each)]
    if not there:
        return
    refused = [each for each in there if each.unverified is not None]
    if not refused:
        would, remedy = "It would pass from here", "Set sslmode=verify-full."
    else:
        first = refused[0].unverified
        assert first is not None
        would = f"It would fail now, for {join_short(each.name for each in refused)}: {reason_of(first).value}"
        remedy = "Set sslrootcert to the roots of this server, give a name that is in its certificate, and set " + (
            f"sslmode=verify-full; for Amazon Aurora: {BUNDLE}."
            if facts.setup.kind is not EndpointKind.PROXY
            else "sslmode=verify-full with sslrootcert=system."
        )
    yield warning(
        f"sslmode={mode} verifies no name" + ("" if mode == "verify-ca" else " and no certificate"),
        f"Another server can take the place of {join_short(each.name for each in there)}, and get the password. "
        f"sslmode=verify-full prevents that. {would}.",
        remedy,
    )


CHECKS = (
    Check("tls-missing", "servers without TLS where it is required, or expected", _find_missing),
    Check("tls-roots", "roots that are missing, or have not signed the certificate", _find_roots),
    Check("tls-names", "names that are not in the certificate", _find_names),
    Check("tls-expiry", f"certificates that have expired, or do so within {DAYS} days", _find_ends),
    Check("tls-unverified", "certificates that are not verified, and whether verify-full would pass", _find_unverified),
)
