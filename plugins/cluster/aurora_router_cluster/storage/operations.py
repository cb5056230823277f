"""The operations of a storage node, declared once: their types, and how arguments and results travel.

`NodeOperations` has a method for each, and leaves to `perform` how the node is reached: `local.LocalNode` calls the
node that is in this process, `remote.RemoteNode` sends a request, which `server.NodeServer` decodes and performs.

A new operation is a method of `node.StorageNode`, a declaration and a method here, and a method of
`protocols.NodeHandle` if drivers, recoveries or peers use it.
"""

from __future__ import annotations

import abc
import inspect
import struct
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from aurora_router_cluster.rpc.framing import OWN, Facts, Reply
from aurora_router_cluster.storage.core.extents import Extent, Span
from aurora_router_cluster.storage.core.replica import Charter, Metadata, NodeState
from aurora_router_cluster.storage.core.scrub import Loss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router_cluster.storage.node import StorageNode

T = TypeVar("T")

SECONDS: Final = 5.0
"""Until a request without an answer fails."""
SCRUB_SECONDS: Final = 600.0
"""The same, for one that reads a whole journal again."""

# What is sent without being asked

LOG, ACK, NACK = range(OWN, OWN + 3)
"""Kinds of messages."""
LOG_HEAD: Final = struct.Struct("!QQIQQ")  # epoch, VDL, group, prev, start; the log's bytes follow
ACK_BODY: Final = struct.Struct("!QIQ")  # epoch, group, SCL
NACK_BODY: Final = struct.Struct("!QQ")  # epoch, promised


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """How a value travels.

    Attributes:
        encode: the value as facts and bytes.
        decode: the inverse.
    """

    encode: Callable[[T], Reply]
    decode: Callable[[Facts, bytes], T]


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One operation.

    Attributes:
        name: of the request, and of the method of `node.StorageNode`.
        parameters: names of its arguments, in order; a name in `VALUES` has a codec, others are plain.
        result: codec of what it returns.
        seconds: until a request without an answer fails.
        owner: the node's owner alone asks for it, and no network lies between.
    """

    name: str
    parameters: tuple[str, ...]
    result: Codec[T]
    seconds: float = SECONDS
    owner: bool = False

    def encode_request(self, arguments: Sequence[Any]) -> Reply:
        """Arguments as facts and bytes."""
        facts, data = dict[str, Any](), b""
        for name, value in zip(self.parameters, arguments, strict=True):
            codec = VALUES.get(name)
            if codec is None:
                facts[name] = value
            else:
                more, data = codec.encode(value)
                facts |= more
        return Reply(facts, data)

    def _decode_request(self, facts: Facts, data: bytes) -> list[Any]:
        codecs = [(name, VALUES.get(name)) for name in self.parameters]
        return [facts[name] if codec is None else codec.decode(facts, data) for name, codec in codecs]

    async def apply(self, node: StorageNode, arguments: Sequence[Any]) -> T:
        """Let a node of this process do it."""
        result = getattr(node, self.name)(*arguments)
        if inspect.isawaitable(result):
            result = await result
        answer: T = result
        return answer

    async def serve(self, node: StorageNode, facts: Facts, data: bytes) -> Reply:
        """Let a node of this process do what a request asks for."""
        return self.result.encode(await self.apply(node, self._decode_request(facts, data)))


# Codecs

_PLAIN = [each.name for each in fields(NodeState) if each.name not in {"charter", "scls", "kept"}]


def _encode_charter(charter: Charter) -> Reply:
    """A charter, encoded as a node writes it to its journal."""
    return Reply({"charter": Metadata(charter.history.epoch, charter).encode().decode()})


def _decode_charter(facts: Facts, _data: bytes) -> Charter:
    return Metadata.decode(facts["charter"].encode()).charter


def _encode_state(state: NodeState) -> Reply:
    plain = {name: getattr(state, name) for name in _PLAIN}
    kept = [[branch, list(scls.items())] for branch, scls in state.kept.items()]
    return Reply({**plain, "scls": list(state.scls.items()), "kept": kept, **_encode_charter(state.charter).facts})


def _decode_state(facts: Facts, data: bytes) -> NodeState:
    plain = {name: facts[name] for name in _PLAIN}
    kept = {branch: dict(scls) for branch, scls in facts["kept"]}
    return NodeState(**plain, scls=dict(facts["scls"]), kept=kept, charter=_decode_charter(facts, data))


def _encode_extents(extents: Sequence[Extent]) -> Reply:
    """Where extents lie, and their bytes end to end."""
    heads = [[each.group, each.prev, each.start, len(each.data)] for each in extents]
    return Reply({"extents": heads}, b"".join(each.data for each in extents))


def _decode_extents(facts: Facts, data: bytes) -> Sequence[Extent]:
    found: list[Extent] = []
    at = 0
    for group, prev, start, length in facts["extents"]:
        found.append(Extent(group, prev, start, data[at : at + length]))
        at += length
    return found


def _encode_spans(spans: Sequence[Span]) -> Reply:
    return Reply({"spans": [list(span) for span in spans]})


def _decode_spans(facts: Facts, _data: bytes) -> Sequence[Span]:
    return [Span(*each) for each in facts["spans"]]


def _encode_damage(found: tuple[int, list[Loss]]) -> Reply:
    damaged, losses = found
    return Reply({"damaged": damaged, "losses": [[loss.group, *loss.span] for loss in losses]})


def _decode_damage(facts: Facts, _data: bytes) -> tuple[int, list[Loss]]:
    return facts["damaged"], [Loss(group, Span(*span)) for group, *span in facts["losses"]]


CHARTER = Codec(_encode_charter, _decode_charter)
NODE_STATE = Codec(_encode_state, _decode_state)
EXTENTS = Codec(_encode_extents, _decode_extents)
SPANS = Codec(_encode_spans, _decode_spans)
BYTES: Codec[bytes] = Codec(lambda data: Reply({}, data), lambda _facts, data: data)
DAMAGE = Codec(_encode_damage, _decode_damage)
NOTHING: Codec[None] = Codec(lambda _none: Reply({}), lambda _facts, _data: None)

VALUES: dict[str, Codec[Any]] = {"charter": CHARTER, "extents": EXTENTS}
"""Name of a parameter -> its codec, where it is not plain; an operation has one with bytes at most."""

# The operations

OPERATIONS: dict[str, Operation[Any]] = {}
"""All operations by name."""


def _declare(
    name: str, *parameters: str, result: Codec[T], seconds: float = SECONDS, owner: bool = False
) -> Operation[T]:
    operation = OPERATIONS[name] = Operation(name, parameters, result, seconds, owner)
    return operation


_FORMAT = _declare("format", "charter", result=NODE_STATE, owner=True)
_STATE = _declare("state", result=NODE_STATE)
_PROMISE = _declare("promise", "epoch", result=NODE_STATE)
_ADOPT = _declare("adopt", "epoch", "charter", result=NODE_STATE)
_PULL = _declare("pull", "epoch", "group", "after", "limit", "branch", result=EXTENTS)
_SPANS = _declare("spans", "group", "after", "branch", result=SPANS)
_FILL = _declare("fill", "epoch", "extents", "branch", result=NODE_STATE)
_READ = _declare("read", "epoch", "lsn", "n", "branch", result=BYTES)
_FIND_DAMAGE = _declare("find_damage", result=DAMAGE, seconds=SCRUB_SECONDS, owner=True)
_RETIRE_DAMAGE = _declare("retire_damage", result=NOTHING, seconds=SCRUB_SECONDS, owner=True)
_REWRITE_METADATA = _declare("rewrite_metadata", result=NOTHING, owner=True)


class NodeOperations(abc.ABC):
    """A storage node, however it is reached: a `protocols.NodeHandle` but for `append`, which is sent on its own way.

    See `node.StorageNode` for what the operations do, and what they raise; all raise `NodeUnavailable` if the node
    does not answer.
    """

    @abc.abstractmethod
    async def perform(self, operation: Operation[T], *arguments: Any) -> T:
        """Let the node do it."""

    async def format(self, charter: Charter) -> NodeState:
        """Make the empty node a member of a new volume."""
        return await self.perform(_FORMAT, charter)

    async def state(self) -> NodeState:
        """What the node holds and has promised."""
        return await self.perform(_STATE)

    async def promise(self, epoch: int) -> NodeState:
        """Let the node obey `epoch` from now on."""
        return await self.perform(_PROMISE, epoch)

    async def adopt(self, epoch: int, charter: Charter) -> NodeState:
        """Install the charter of `epoch`."""
        return await self.perform(_ADOPT, epoch, charter)

    async def pull(self, epoch: int, group: int, after: int, limit: int, branch: int = 0) -> Sequence[Extent]:
        """Extents of `group` above `after` (bytes), about `limit` bytes."""
        return await self.perform(_PULL, epoch, group, after, limit, branch)

    async def spans(self, group: int, after: int, branch: int = 0) -> Sequence[Span]:
        """Where the extents of `group` above `after` (bytes) lie."""
        return await self.perform(_SPANS, group, after, branch)

    async def fill(self, epoch: int, extents: Sequence[Extent], branch: int = 0) -> NodeState:
        """Give the node extents that a peer holds."""
        return await self.perform(_FILL, epoch, extents, branch)

    async def read(self, epoch: int, lsn: int, n: int, branch: int = 0) -> bytes:
        """At most `n` bytes of the log from `lsn` on."""
        return await self.perform(_READ, epoch, lsn, n, branch)

    async def find_damage(self) -> tuple[int, list[Loss]]:
        """Read the whole journal again; returns the number of damaged places, and what lay there."""
        return await self.perform(_FIND_DAMAGE)

    async def retire_damage(self) -> None:
        """What `find_damage` found has been refilled: let it be found no more."""
        await self.perform(_RETIRE_DAMAGE)

    async def rewrite_metadata(self) -> None:
        """Write the metadata again, in case a damaged place held them."""
        await self.perform(_REWRITE_METADATA)
