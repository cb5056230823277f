"""What is used of botocore's description of a service, as types: botocore itself ships none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Shape(Protocol):
    """A type of a parameter or of a part of the output.

    Attributes:
        name: of it.
        type_name: ``structure``, ``list`` or the name of a scalar type.
        serialization: ``name``: how a member is called on the line, if not as in the structure.
        metadata: of an error: its code and status.
        members: of a structure, by name, in order.
        member: of a list: its elements.
        required_members: of a structure.
    """

    name: str
    type_name: str
    serialization: Mapping[str, Any]
    metadata: Mapping[str, Any]
    members: Mapping[str, Shape]
    member: Shape
    required_members: Sequence[str]


class Operation(Protocol):
    """An operation.

    Attributes:
        name: of it.
        input_shape: a structure; None: it takes nothing.
        output_shape: likewise.
    """

    name: str
    input_shape: Shape | None
    output_shape: Shape | None
