"""Sources of attributes: what describes a cluster beside SQL, such as the API of a cloud.

``aurora_attributes=NAME`` takes a source from the entry points of the group ``aurora_router.attributes``. It is asked
in a thread of its own, by one asker per cluster in the process: when the set of instances or the writer has changed,
at a random moment within two minutes, and otherwise every five minutes on average. No connect waits for it. What it
returns replaces what it returned before. While it fails, that is kept, except the members of custom endpoints: after a
quarter of an hour they count no more, and DNS alone decides.

A source may have more than a call: ``from_options(options)`` and ``options``, a set of names, by which the entry point
makes it from these options of the connection (name without ``aurora_`` -> value), as far as they are given. They are of
this library.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from aurora_router.model.description import Attributes, CustomEndpoint, Description, EndpointType
from aurora_router.model.endpoint import Endpoint, EndpointKind

__all__ = [
    "GROUP",
    "AttributeSource",
    "Attributes",
    "CustomEndpoint",
    "Description",
    "DescriptionFailed",
    "Endpoint",
    "EndpointKind",
    "EndpointType",
    "Question",
]

GROUP = "aurora_router.attributes"
"""The group of entry points: name -> a source."""


class Question(NamedTuple):
    """Which cluster is to be described.

    Attributes:
        endpoint: the name by which users connect.
        instances: the ids of the instances that are known by SQL.
        endpoints: whether the members of custom endpoints are wanted.
        own_zone: whether the zone of this process is wanted.
        cluster: the cluster's own id, as the last description gave it; None: it has to be found.
    """

    endpoint: Endpoint
    instances: tuple[str, ...] = ()
    endpoints: bool = False
    own_zone: bool = False
    cluster: str | None = None


class DescriptionFailed(Exception):
    """A source can't describe the cluster now; the text says what was wrong and what to do.

    Args:
        text: for people.
        lasting: whether another try would fail as well until a person changes something.
        own_zone: the zone of this process, as in `Description`, where that is known all the same.
    """

    def __init__(self, text: str, *, lasting: bool = False, own_zone: str | None = None) -> None:
        super().__init__(text)
        self.lasting = lasting
        self.own_zone = own_zone


class AttributeSource(Protocol):
    """What describes clusters."""

    def __call__(self, question: Question, /) -> Description:
        """Describe a cluster; takes its time.

        Raises:
            DescriptionFailed: it can't.
        """
        ...
