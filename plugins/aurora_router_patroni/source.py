"""The members of a Patroni cluster, as its REST API lists them.

Source: Patroni documentation, "Patroni REST API" (``GET /cluster``, ``GET /patroni``) and "YAML Configuration Settings"
(``restapi``, ``tags``).

Theory. A member answers ``GET /cluster`` from the configuration store, or from what it last knew of it: one that is cut
off lists what was. So the list is no evidence of roles, and of the leader it is no more than a hint; the servers report
by SQL what they are, and on which timeline. For the same reason two members are asked: only if they agree is the list
complete, so that members that are not in it have left. ``GET /patroni`` has the system identifier of the data, by which
the core makes sure that the list is of the cluster to which the given hosts belong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router.sources import POSTGRESQL, Member, Members, MembersFailed, Source
from aurora_router_patroni.rest import RestApi, RestFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PORT = 8008
"""Where the REST API listens unless its configuration says otherwise."""
LEADERS = frozenset({"leader", "master", "primary"})
"""The role of the writer, in the words of different versions; the leader of a standby cluster is a reader."""
ZONE_TAGS = ("availability_zone", "zone")
"""Tags that say a member's zone."""


class PatroniSource:
    """Makes the topology source of a connection, as its entry point does."""

    options = frozenset({"patroni", "patroni_login", "patroni_ca", "patroni_cert"})

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Source:
        """The source: plain PostgreSQL's own report by SQL, and the members by REST.

        Args:
            options: ``patroni`` (URLs), ``patroni_login``, ``patroni_ca``, ``patroni_cert`` (paths), as far as given.
        """
        api = RestApi(options.get("patroni_login"), options.get("patroni_ca"), options.get("patroni_cert"))
        urls: tuple[str, ...] = options.get("patroni", ())

        def list_members(hosts: Sequence[str]) -> Members:
            return find_members(api, urls or tuple(f"http://{_format_host(host)}:{PORT}" for host in hosts))

        return Source(
            "patroni",
            POSTGRESQL.sql,
            POSTGRESQL.read,
            absent=POSTGRESQL.absent,
            complete=False,
            servers="PostgreSQL under Patroni",
            members=list_members,
        )


def find_members(api: RestApi, urls: Sequence[str]) -> Members:
    """Ask members, one after the other, until two have answered; what either lists is a member.

    Raises:
        MembersFailed: none of them answered.
    """
    answers: list[tuple[str, tuple[Member, ...]]] = []
    system, failures = "", list[str]()
    for url in urls:
        try:
            listed = read_members(api.get(url, "/cluster"))
            system = system or read_system(api.get(url, "/patroni"))
        except RestFailed as failed:
            failures.append(str(failed))
            continue
        answers.append((url, listed))
        if len(answers) > 1:
            break
    if not answers:
        raise MembersFailed(
            f"no member's REST API of Patroni listed the cluster ({'; '.join(failures) or 'no host is given'}): check "
            "aurora_patroni"
        )
    (first, members), *others = answers
    places = [{(each.host, each.port) for each in listed} for _, listed in answers]
    advice = None
    for (url, listed), there in zip(others, places[1:], strict=True):
        if there != places[0]:
            advice = f"members of Patroni disagree: {first} lists {_names(members)}, {url} lists {_names(listed)}"
            members += tuple(each for each in listed if (each.host, each.port) not in places[0])
    agree = advice is None and (len(answers) > 1 or len(urls) == len(members) == 1)
    return Members(members, system, complete=agree, advice=advice)


def read_members(answer: Any) -> tuple[Member, ...]:
    """The members in an answer to ``GET /cluster``; what makes no sense is left out.

    Raises:
        RestFailed: it is no such answer.
    """
    listed = answer.get("members") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise RestFailed("the answer to GET /cluster has no members, so it is not Patroni's REST API")
    return tuple(found for each in listed if isinstance(each, dict) and (found := _read_member(each)) is not None)


def _read_member(given: Mapping[str, Any]) -> Member | None:
    host, port, tags = given.get("host"), given.get("port"), given.get("tags")
    if not isinstance(host, str) or not host or not isinstance(port, int) or not 0 < port < 65536:
        return None
    tags = tags if isinstance(tags, dict) else {}
    zone = next((str(tags[each]) for each in ZONE_TAGS if each in tags), None)
    return Member(host, port, zone, given.get("role") in LEADERS, tags.get("noloadbalance") is not True)


def read_system(answer: Any) -> str:
    """The system identifier in an answer to ``GET /patroni``.

    Raises:
        RestFailed: there is none.
    """
    system = answer.get("database_system_identifier") if isinstance(answer, dict) else None
    if not isinstance(system, str) or not system.isdigit():
        raise RestFailed("the answer to GET /patroni has no system identifier: PostgreSQL does not run there yet")
    return system


def _names(members: Sequence[Member]) -> str:
    return ", ".join(sorted(f"{each.host}:{each.port}" for each in members)) or "none"


def _format_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
