"""What may be odd in a schedule, beside the incidents that every schedule may have.

Each *dimension* is a kind of trouble that an environment brings and that our own cluster does not: a pooler, a row
without an id, a client that stands still. Which ones a schedule has follows from its seed alone, and not from the
random numbers that the rest of the schedule is made of: without dimensions, a seed plays what it always played.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Dimensions:
    """Which dimensions may be drawn.

    Attributes:
        constant_reports: one path, or all, report ``in_hot_standby=off``, whatever the server is.
        pooler: clients reach the writer through a pooler, which remembers what the first server reported and follows
            the cluster endpoint late.
        odd_rows: answers lack rows, or have some that are empty, malformed, doubled or of an instance that has left.
        shared_template: another cluster has names of the same template.
        shared_pooler: one pooler serves two clusters, with a database name each; else as `pooler`.
        reset_dials: some dials are reset.
        stalled_accepting: a server accepts no session for a while; those that it has go on.
        stalled_clients: the users' side of a process stands still, its monitor goes on; answers wait unread.
        refused_threads: the monitor cannot be started for a while.
        changed_passwords: the password changes; the monitor has the old one until a user connects.
        rebuilt_readers: the writer is lost while all readers are being built.
        frozen_dials: the writer falls silent while it is dialled; a connect does not wait for that dial when another
            writer is known.
        unknown_addresses: nothing says where one of the instances is.
        hidden_notices: sessions have ``client_min_messages=error``.
        own_endings: the work ends its transaction by itself, and fails after that.
        stale_lag: readers fall behind, and ``aurora_max_lag`` is given.
        lost_packets: the network loses some of the packets that begin a monitor's session; the kernel repeats them.
        stalled_postmasters: a server accepts no session for a while, and a statement that sends nothing goes on.
        slow_logins: a login takes a server longer than a ping may take, after its first bytes; statements go on.
        refused_dials: a server refuses new sessions for a while, and those that it has go on.
        unknown_sentences: a server refuses sessions for a while with a sentence that is not known; those that it has go
            on.
        silent_kernels: no kernel says when a connection received something (a Unix socket, a system without
            ``TCP_INFO``).
        idle_logs: the log grows by what is committed, and by a promotion, alone; the first writer takes over again.
        hasty_failovers: nothing but the driver lets the log grow, and the writer is promoted again before a client has
            heard it as a reader, while all others are away.
        late_tokens: for as long as a row may be old, a new writer shows less of the log than the former one made
            durable.
        answered_losses: a pooler that loses its server at COMMIT answers for it, and goes on with another session.
    """

    constant_reports: bool = False
    pooler: bool = False
    odd_rows: bool = False
    shared_template: bool = False
    shared_pooler: bool = False
    reset_dials: bool = False
    stalled_accepting: bool = False
    stalled_clients: bool = False
    refused_threads: bool = False
    changed_passwords: bool = False
    rebuilt_readers: bool = False
    frozen_dials: bool = False
    unknown_addresses: bool = False
    hidden_notices: bool = False
    own_endings: bool = False
    stale_lag: bool = False
    lost_packets: bool = False
    stalled_postmasters: bool = False
    slow_logins: bool = False
    refused_dials: bool = False
    silent_kernels: bool = False
    unknown_sentences: bool = False
    idle_logs: bool = False
    hasty_failovers: bool = False
    late_tokens: bool = False
    answered_losses: bool = False

    @property
    def names(self) -> list[str]:
        """Those that may be drawn."""
        return [each.name for each in fields(self) if getattr(self, each.name)]

    def draw(self, seed: int) -> frozenset[str]:
        """Those that the schedule of a seed has: two at most."""
        rng = random.Random(f"dimensions of {seed}")
        return frozenset(rng.sample(self.names, min(len(self.names), rng.choice([0, 1, 1, 1, 2]))))

    @classmethod
    def just(cls, *names: str) -> Dimensions:
        """These alone."""
        return replace(cls(), **dict.fromkeys(names, True))


NONE = Dimensions()
PLAYED = Dimensions.just(*(each.name for each in fields(Dimensions)))
"""What campaigns draw from."""
NEED_AURORA = frozenset(
    {
        "pooler",
        "odd_rows",
        "shared_template",
        "shared_pooler",
        "unknown_addresses",
        "idle_logs",
        "hasty_failovers",
        "late_tokens",
    }
)
"""Those that a list of hosts cannot have."""
