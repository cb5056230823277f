"""Which instances, and given names, refuse the monitor's login: they are not asked for a while.

Theory. The monitor logs in with the credentials of the last connect. A server that refuses them (a password was
changed) will refuse them again, and servers count failed logins: some lock the user out. So after a refusal the server
is not asked for `LOCKOUT_SECONDS`, twice as long after each further one, up to `LONGEST_LOCKOUT_SECONDS`. A user's
connect shows that some login is accepted: with the same parameters the servers are asked again at once; with other
parameters, which no server has refused yet, all refusals are void.

Invariant: a server that refuses each time is asked at most once in `LOCKOUT_SECONDS`, unless a user connects.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LOCKOUT_SECONDS, LONGEST_LOCKOUT_SECONDS = 60.0, 600.0
"""How long a server that refused the monitor's login is not asked at first, and at most; in seconds."""


class Lockout(NamedTuple):
    """A refused login: until when the server is not asked (the runtime's time), and for how long, in seconds."""

    until: float
    length: float


class Lockouts:
    """The refused logins; each method that changes something returns the next value.

    Attributes:
        terms: the last refusal of each server that has not accepted a login since, by instance id or given name.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[str, Lockout] = MappingProxyType({})) -> None:
        self.terms = terms

    def is_locked_out(self, name: str, now: float) -> bool:
        """Whether a server is not to be asked now."""
        return name in self.terms and now < self.terms[name].until

    def record_refusal(self, name: str, now: float) -> Lockouts:
        """After a server refused the login."""
        before = self.terms.get(name)
        length = LOCKOUT_SECONDS if before is None else min(2.0 * before.length, LONGEST_LOCKOUT_SECONDS)
        return Lockouts(MappingProxyType({**self.terms, name: Lockout(now + length, length)}))

    def record_login(self, name: str) -> Lockouts:
        """After a server accepted the login."""
        return self.keep(self.terms.keys() - {name}) if name in self.terms else self

    def retry(self) -> Lockouts:
        """After a user connected with the same parameters: each server may be asked again now."""
        return Lockouts(MappingProxyType({name: each._replace(until=0.0) for name, each in self.terms.items()}))

    def keep(self, names: Collection[str]) -> Lockouts:
        """Forget all servers but these."""
        if self.terms.keys() <= set(names):
            return self
        return Lockouts(MappingProxyType({name: each for name, each in self.terms.items() if name in names}))
