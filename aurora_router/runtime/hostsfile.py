"""The hosts file, read again when it changes."""

from __future__ import annotations

from pathlib import Path

PATH = Path("/etc/hosts")


class HostsFile:
    """Names of the hosts file (hosts(5)): ``address name alias…``, comments from ``#`` on."""

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        self._read_at = -1
        self._table: dict[str, tuple[str, ...]] = {}

    def lookup(self, host: str) -> tuple[str, ...]:
        """The addresses of a canonical (lower-case) host name, IPv4 first; empty when it is not there."""
        self._refresh()
        return self._table.get(host, ())

    def _refresh(self) -> None:
        try:
            changed = self._path.stat().st_mtime_ns
        except OSError:
            self._table, self._read_at = {}, -1
            return
        if changed != self._read_at:
            self._table = parse_hosts(self._path.read_text(encoding="utf-8", errors="replace"))
            self._read_at = changed


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Name -> addresses, IPv4 before IPv6, each in the order of the file."""
    table: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            known = table.setdefault(name.lower().removesuffix("."), [])
            if address not in known:
                known.append(address)
    return {name: tuple(sorted(known, key=lambda each: ":" in each)) for name, known in table.items()}
