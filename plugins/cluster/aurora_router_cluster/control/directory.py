"""The directory: to which address each host name leads, as the name server answers now."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from aurora_router_cluster.control.pausing import ASLEEP
from aurora_router_cluster.control.status import ENDPOINT_KINDS, CustomEndpoint
from aurora_router_cluster.dns import names as naming
from aurora_router_cluster.dns.zone import Zone
from aurora_router_cluster.errors import NameTakenError, RequestError, UnknownEndpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aurora_router_cluster.dns.names import Names
    from aurora_router_cluster.postgres.addresses import Address


class Placed(Protocol):
    """An instance, as far as names lead to it."""

    state: str

    @property
    def name(self) -> str:
        """Its identifier."""
        ...

    @property
    def address(self) -> Address:
        """Where clients reach it."""
        ...

    @property
    def available(self) -> bool:
        """Whether it takes connections, as far as known."""
        ...


class Named(Protocol):
    """A cluster, as far as it has names; of any engine."""

    @property
    def names(self) -> Names:
        """Its host names."""
        ...

    @property
    def instances(self) -> Mapping[str, Placed]:
        """All instances."""
        ...

    @property
    def writer(self) -> Placed | None:
        """The writer; None: there is none at this moment."""
        ...

    @property
    def readers(self) -> Sequence[Placed]:
        """The others."""
        ...

    def get(self, name: str) -> Placed:
        """The instance of that name; raises `UnknownInstanceError`."""
        ...


class Directory:
    """Host names of the cluster that `state` describes.

    Args:
        state: the instances.
        ttl: time to live of the records, seconds.
        delay: seconds by which the cluster name lags behind a change of writer (Aurora's may need 40 to 60).

    Attributes:
        published: called after every change.
    """

    def __init__(self, state: Named, *, ttl: int = 5, delay: float = 0.0) -> None:
        self._state = state
        self._ttl = ttl
        self._delay = delay
        self._writer: Placed | None = None
        self._flip: asyncio.TimerHandle | None = None
        self._serial = 1
        self._zone: Zone | None = None
        self.published: Callable[[], None] = lambda: None
        self.custom: dict[str, CustomEndpoint] = {}
        self.cnames: dict[str, str] = {}

    def on_state_change(self) -> None:
        """The cluster state changed: the cluster name follows at once, or after the delay."""
        self._invalidate()
        if self._state.writer is self._writer or self._state.writer is None:
            return
        if self._writer is None or self._delay <= 0:
            self._follow()
        elif self._flip is None:
            self._flip = asyncio.get_running_loop().call_later(self._delay, self._follow)

    def _follow(self) -> None:
        self._flip = None
        self._writer = self._state.writer
        self._invalidate()

    def _invalidate(self) -> None:
        self._serial += 1
        self._zone = None
        self.published()

    def picture(self) -> Zone:
        """The zone as of now."""
        if self._zone is None:
            hosts = self._hosts()
            self._zone = Zone(self._state.names.zone, hosts, dict(self.cnames), self._ttl, self._serial)
        return self._zone

    def _hosts(self) -> dict[str, tuple[str, ...]]:
        state, names = self._state, self._state.names
        hosts: dict[str, tuple[str, ...]] = {
            names.instance(one.name): (one.address.host,) for one in state.instances.values() if one.state != "deleting"
        }
        if self._writer is not None:
            hosts[names.writer] = (self._writer.address.host,)
        readers = [one.name for one in state.readers]
        hosts[names.reader] = self._addresses(readers) or hosts.get(names.writer, ())
        for custom in self.custom.values():
            hosts[custom.endpoint] = self._addresses(
                [one.name for one in state.instances.values() if custom.leads_to(one.name, writes=one is state.writer)]
            )
        return hosts

    def _addresses(self, instances: Sequence[str]) -> tuple[str, ...]:
        found = (self._state.instances.get(name) for name in instances)
        return tuple(one.address.host for one in found if one is not None and (one.available or one.state in ASLEEP))

    def to_record(self) -> dict[str, Any]:
        """The custom endpoints and aliases, as they are written down for a cluster that is started again."""
        return {"custom": [asdict(one) for one in self.custom.values()], "cnames": dict(self.cnames)}

    def find_again(self, written: Mapping[str, Any]) -> None:
        """Enter the custom endpoints and aliases that were written down."""
        for each in written["custom"]:
            before = {"kind": default_kind(exclude=each["exclude"])}  # an older record has no kinds
            made = CustomEndpoint(**{**before, **each, "members": tuple(each["members"])})
            self.custom[made.label] = made
        self.cnames.update(written["cnames"])
        self._invalidate()

    def create_custom(
        self, label: str, members: Sequence[str], *, exclude: bool, kind: str | None = None
    ) -> CustomEndpoint:
        """Add a custom endpoint over `members`, or over all instances but these.

        Args:
            label: of it.
            members: instances.
            exclude: it leads to all but `members`.
            kind: see `CustomEndpoint`; None: ``READER`` with `exclude`, else ``ANY``.

        Raises:
            NameTakenError: the label is taken or cannot be one.
            RequestError: a list of no members, or an unknown kind.
            UnknownInstanceError: a member does not exist.
        """
        naming.check_label(label, "a custom endpoint")
        if label in self.custom:
            raise NameTakenError(f"there is a custom endpoint {label!r} already; delete it first")
        return self._put_custom(label, members, exclude, kind or default_kind(exclude=exclude))

    def modify_custom(
        self, label: str, members: Sequence[str] | None, *, exclude: bool, kind: str | None
    ) -> CustomEndpoint:
        """Change the members (with `exclude`: what it leaves out) or the kind of a custom endpoint; None: as before.

        Raises:
            UnknownEndpointError: there is none.
            RequestError, UnknownInstanceError: see `create_custom`.
        """
        before = self._find_custom(label)
        if members is None:
            members, exclude = before.members, before.exclude
        return self._put_custom(label, members, exclude, kind or before.kind)

    def _put_custom(self, label: str, members: Sequence[str], exclude: bool, kind: str) -> CustomEndpoint:  # noqa: FBT001
        if not members and not exclude:
            raise RequestError(f"the custom endpoint {label!r} needs at least one member")
        if kind not in ENDPOINT_KINDS:
            raise RequestError(f"unknown kind of endpoint {kind!r}; there are {', '.join(ENDPOINT_KINDS)}")
        for member in members:
            self._state.get(member)
        made = CustomEndpoint(label, self._state.names.custom(label), tuple(members), exclude, kind)
        self.custom[label] = made
        self._invalidate()
        return made

    def _find_custom(self, label: str) -> CustomEndpoint:
        if label not in self.custom:
            raise UnknownEndpointError(
                f"there is no custom endpoint {label!r}; there are: {', '.join(self.custom) or 'none'}"
            )
        return self.custom[label]

    def delete_custom(self, label: str) -> None:
        """Delete a custom endpoint.

        Raises:
            UnknownEndpointError: there is none.
        """
        del self.custom[self._find_custom(label).label]
        self._invalidate()

    def add_cname(self, name: str, target: str) -> None:
        """Make the name server say that `name` is an alias of `target`; an earlier alias is replaced.

        Raises:
            NameTakenError: `name` is one of the cluster's own, or not a host name.
        """
        name, target = name.rstrip(".").lower(), target.rstrip(".").lower()
        for text in (name, target):
            if not text or len(text) > 253 or not all(0 < len(label) <= 63 for label in text.split(".")):
                raise NameTakenError(f"{text!r} is not a host name")
        if name in self.picture().hosts or name == target:
            raise NameTakenError(f"{name} is a name of the cluster itself and cannot be an alias")
        self.cnames[name] = target
        self._invalidate()

    def close(self) -> None:
        """Cancel a pending change."""
        if self._flip is not None:
            self._flip.cancel()


def default_kind(*, exclude: bool) -> str:
    """The kind of a custom endpoint for which none is given."""
    return "READER" if exclude else "ANY"
