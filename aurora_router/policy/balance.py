"""Which instance a connection goes to, and which ones after it: filters, then preferences, then a chooser.

Theory. A *filter* enforces what was promised (the role, the lag): an instance that fails it is out, and the reason is
kept for messages. A *preference* only orders: 0 is best, the higher the later. Preferences are compared in the order of
`PREFERENCES`, so a suitable instance that just failed comes after every one that did not, the fall-back after every
reader, and zones decide among equals; `affinity` says how strictly. Choosing within equals is the business of
`choosers`.

Invariants (property tests): the order holds every instance that passes the filters exactly once; an instance never
comes before one that is preferred, but for its zone; every instance of the view is either in the order or left out with
a reason.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from aurora_router.forks import IMPORTING, UNREADABLE
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.policy.choosers import CHOOSERS
from aurora_router.policy.context import Context, Exclusion
from aurora_router.policy.options import OWN_ZONE, Balance, Options, ReaderFallback

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from aurora_router.model.description import CustomEndpoint
    from aurora_router.model.view import View
    from aurora_router.policy.affinity import Affinity
    from aurora_router.policy.choosers import Chooser
    from aurora_router.policy.context import Load, Random, Rank
    from aurora_router.policy.options import CustomBalance
    from aurora_router.policy.quarantine import Quarantine

LAG_SECONDS = 1.0
"""A reader that lagged too far is asked again after so long: a dial and a query a second are no burden."""


class Selection(NamedTuple):
    """Which instances to try, in this order.

    Attributes:
        order: the first choice, then the alternatives; empty when none suits. An instance in it whose role is
            `Role.UNKNOWN` has to be asked for its role before it is used.
        ranks: how much each of `order` is preferred; equal ranks are equally good, and so are zones that chance decides
            between.
        left_out: the instances that do not suit, and why.
        context: what the selection was made from.
        overflow: how busy the zones are, where chance has decided for a further one; else None.
    """

    order: tuple[Instance, ...]
    ranks: tuple[Rank, ...]
    left_out: tuple[Exclusion, ...]
    context: Context
    overflow: Affinity | None = None

    @property
    def reason(self) -> str:
        """Say in one sentence why the first choice was chosen, or why there is none."""
        try:
            with IMPORTING:
                from aurora_router.policy.explain import reason  # noqa: PLC0415 - for errors alone
        except UNREADABLE:
            return f"{len(self.order)} instances suit, {len(self.left_out)} do not"

        return reason(*self)

    @property
    def lines(self) -> list[str]:
        """Every instance in one line: first those in the order of preference, then those left out."""
        with IMPORTING:
            from aurora_router.policy.explain import lines  # noqa: PLC0415 - for explanations alone

        return lines(self.order, self.left_out, self.context)

    def preferring(self, instance: str) -> Selection:
        """The same selection with one instance in front, if it is as good as the first choice; else unchanged.

        For a connection that is already there: it is not worth a worse zone or the writer in place of a reader.
        """
        for position, each in enumerate(self.order):
            if each.id == instance and self.ranks[position] == self.ranks[0]:
                return self._replace(order=(each, *self.order[:position], *self.order[position + 1 :]))
        return self


class Ranking(NamedTuple):
    """What filters and preferences make of a view: without chance, loads and turns.

    Attributes:
        tiers: the instances that suit by rank, the best first.
        left_out: those that do not suit, and why.
    """

    tiers: Mapping[Rank, Sequence[Instance]]
    left_out: tuple[Exclusion, ...]


class Rankings:
    """The last ranking of a cluster for each wanted role: a warm connect needs the same one as that before it.

    A ranking is remembered where time has no part in it, and counts for the same view, options and endpoint. Safe for
    threads: what is remembered for a role is replaced as a whole.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[WantedRole, tuple[View, Options, CustomEndpoint | None, Ranking]] = {}

    def find(self, context: Context) -> Ranking:
        """Return what filters and preferences make of the view."""
        view, options, endpoint = context.view, context.options, context.endpoint
        if context.quarantine.terms or view.drains or options.max_lag is not None:  # these depend on the time
            return make_ranking(context)
        last = self._last.get(context.role)
        if last is not None and last[0] is view and last[1] is options and last[2] is endpoint:
            return last[3]
        ranking = make_ranking(context)
        self._last[context.role] = view, options, endpoint, ranking
        return ranking


def make_ranking(context: Context) -> Ranking:
    """Filter the instances of a view, and rank those that suit."""
    candidates = suitable(context.view.instances.values(), context)
    return Ranking(make_tiers(candidates.kept, context), candidates.left_out)


def select(
    view: View,
    options: Options,
    role: WantedRole,
    *,
    loads: Mapping[str, Load],
    quarantine: Quarantine,
    now: float,
    rng: Random,
    turn: int = 0,
    endpoint: CustomEndpoint | None = None,
    rankings: Rankings | None = None,
) -> Selection:
    """Choose instances for one connection.

    For concurrent connects to spread, the caller counts each selection (a connection being opened in `loads`, the next
    `turn`) before it makes the next one.

    Raises:
        ExtensionFailed: the user's function, if `options` have one, raised or returned what it may not.

    Args:
        view: the cluster as last known.
        options: balance, weights, lag, zones, fall-back.
        role: which instances may serve, by `Options.role` or the kind of endpoint.
        loads: what this process puts on each instance, by id; one that is missing counts as unused.
        quarantine: which instances failed recently.
        now: the time by the runtime's clock, in seconds.
        rng: for ties and for the strategies that draw.
        turn: a number that the caller increases by one with each selection; best started at a random one, so that many
            processes do not start with the same instance.
        endpoint: the custom endpoint whose members alone may serve; None: all instances may.
        rankings: of the cluster, to use again what has not changed.
    """
    context = Context(view, options, role, loads, quarantine, now, rng, turn, endpoint)
    tiers, left_out = make_ranking(context) if rankings is None else rankings.find(context)
    choose = CHOOSERS[options.balance] if isinstance(options.balance, Balance) else _chooser_of(options.balance)
    order: list[Instance] = []
    ranks: list[Rank] = []
    for number, tier in tiers.items():
        order += choose(tier, context) if len(tier) > 1 else tier
        ranks += [number] * len(tier)
    selection = Selection(tuple(order), tuple(ranks), left_out, context)
    return _overflow(selection, tiers) if options.zones and len(tiers) > 1 else selection


def make_tiers(instances: Iterable[Instance], context: Context) -> dict[Rank, list[Instance]]:
    """Instances by rank, the best first."""
    tiers: dict[Rank, list[Instance]] = {}
    for each in instances:
        tiers.setdefault(rank(each, context), []).append(each)
    return dict(sorted(tiers.items()))


def find_zones(tiers: Mapping[Rank, Sequence[Instance]]) -> list[Sequence[Instance]]:
    """The best tiers, those that differ by their zone alone, nearest first."""
    best = next(iter(tiers), ())
    return [tier for number, tier in tiers.items() if number[:-1] == best[:-1]]  # `in_zone` is the last preference


def _overflow(selection: Selection, tiers: Mapping[Rank, Sequence[Instance]]) -> Selection:
    """The selection after chance has decided between the nearest zone and further ones; see `policy.affinity`."""
    with IMPORTING:
        from aurora_router.policy.affinity import find_affinity  # noqa: PLC0415 - for those who set zones

    affinity = find_affinity(find_zones(tiers), selection.context)
    if affinity is None or affinity.reach == 1:
        return selection
    order, ranks, context = selection.order, selection.ranks, selection.context
    reached = sum(map(len, affinity.zones[: affinity.reach]))
    selection = selection._replace(ranks=(ranks[0],) * reached + ranks[reached:])
    zone = affinity.draw(context)
    if zone == 0:
        return selection
    first, those = affinity.draw_instance(zone, context), {each.id for each in affinity.zones[zone]}
    # Those of the zone come first: the one that was drawn, then the others as the strategy says.
    order = tuple(sorted(order, key=lambda each: (each.id not in those, each is not first if each.id in those else 0)))
    return selection._replace(order=order, overflow=affinity)


def _chooser_of(custom: CustomBalance) -> Chooser:
    """The chooser that a user's function makes."""
    with IMPORTING:
        from aurora_router.policy.custom_balance import order_by_function  # noqa: PLC0415 - few have a function

    return partial(order_by_function, custom)


class Candidates(NamedTuple):
    """The instances that still suit, in the order of the view, and those that do not."""

    kept: tuple[Instance, ...]
    left_out: tuple[Exclusion, ...] = ()

    def sift(self, verdict: Callable[[Instance], str | None]) -> Candidates:
        """Leave out those for which `verdict` gives a reason."""
        kept: list[Instance] = []
        left_out = list(self.left_out)
        for each in self.kept:
            reason = verdict(each)
            if reason is None:
                kept.append(each)
            else:
                left_out.append(Exclusion(each, reason))
        return Candidates(tuple(kept), tuple(left_out))


# ---------------------------------------------------------------- filters: (candidates, context) -> candidates


def by_role(candidates: Candidates, context: Context) -> Candidates:
    """Those with the wanted role, and those that may stand in for it.

    An instance whose role is unknown stays: the connect asks it, and it is asked after those that are known.
    """
    if context.role is WantedRole.WRITER:
        return candidates.sift(lambda each: "it is a reader" if each.role is Role.READER else None)
    if context.role is not WantedRole.READER or context.options.reader_fallback is ReaderFallback.WRITER:
        return candidates
    reason = "it is the writer, and aurora_reader_fallback=error"
    return candidates.sift(lambda each: reason if each.role is Role.WRITER else None)


def by_manager(candidates: Candidates, context: Context) -> Candidates:
    """For reads those that the manager of the cluster means for reads, unless there is no other reader."""
    reserved = context.view.reserved
    if not reserved or context.role not in {WantedRole.READER, WantedRole.PREFER_READER}:
        return candidates
    if not any(each.role is not Role.WRITER and each.id not in reserved for each in candidates.kept):
        return candidates
    return candidates.sift(
        lambda each: "the manager of the cluster keeps it from reads" if each.id in reserved else None
    )


def by_endpoint(candidates: Candidates, context: Context) -> Candidates:
    """The members of the custom endpoint by whose name the connect goes, in their present roles."""
    endpoint = context.endpoint
    if endpoint is None:
        return candidates
    return candidates.sift(lambda each: None if endpoint.has_member(each) else "it is no member of the custom endpoint")


def by_lag(candidates: Candidates, context: Context) -> Candidates:
    """Those within ``aurora_max_lag``, and those that may be: a figure says nothing of the lag at a later time.

    It is a promise, so a connect asks a reader for its lag unless the last figure and its age are within the
    bound. One whose lag was above it, or which did not know it itself, is left out for `LAG_SECONDS`. That
    another instance does not know it is no reason: then it would never be asked itself. The writer does not lag.
    """
    limit = context.options.max_lag
    if limit is None:
        return candidates

    def verdict(instance: Instance) -> str | None:
        if not _was_beyond(instance, limit) or instance.lag_at is None:
            return None
        looked_at = instance.heard_at if instance.lag is None else instance.lag_at
        if looked_at is None or context.now - looked_at >= LAG_SECONDS:
            return None
        if instance.lag is None:
            return f"its lag is unknown, and aurora_max_lag is {limit:g} s"
        return f"lag {instance.lag:g} s > aurora_max_lag {limit:g} s"

    return candidates.sift(verdict)


def _was_beyond(instance: Instance, limit: float) -> bool:
    """Whether a reader's lag was above a bound, or unknown, at the last look."""
    return instance.role is Role.READER and (instance.lag is None or instance.lag > limit)


def is_lag_unproven(instance: Instance, options: Options, at: float) -> bool:
    """Whether a reader has to be asked for its lag, since at that time it may have been above ``aurora_max_lag``."""
    if options.max_lag is None or instance.role is not Role.READER:
        return False
    lag = instance.lag_at_most(at)
    return lag is None or lag > options.max_lag


def by_weight(candidates: Candidates, context: Context) -> Candidates:
    """Without those of weight 0, where weights count."""
    if context.options.balance is not Balance.WEIGHTED:
        return candidates
    return candidates.sift(lambda instance: None if context.weight(instance) else "its weight is 0")


FILTERS: tuple[Callable[[Candidates, Context], Candidates], ...] = (by_endpoint, by_role, by_manager, by_lag, by_weight)


def suitable(instances: Iterable[Instance], context: Context) -> Candidates:
    """All filters, one after the other."""
    candidates = Candidates(tuple(instances))
    for each in FILTERS:
        candidates = each(candidates, context)
    return candidates


def is_another_available(context: Context, available: Container[str]) -> bool:
    """Whether a suitable instance that is not among those `available` before has joined, or answered after a failure.

    A connect that waits for an instance that failed, as its last resort, is better off with that one.
    """
    others = (each for each in context.view.instances.values() if each.id not in available)
    return bool(suitable((each for each in others if each.id not in context.quarantine.terms), context).kept)


# ---------------------------------------------------------------- preferences: (instance, context) -> 0, 1, …


def not_failed(instance: Instance, context: Context) -> int:
    """Those in quarantine are a last resort."""
    quarantine = context.quarantine
    return 1 if instance.id in quarantine.terms and quarantine.remaining(instance.id, context.now) > 0 else 0


def not_drained(instance: Instance, context: Context) -> int:
    """Those that no operator drains; a reader that is drained serves only where nothing else may."""
    view = context.view
    return 1 if view.drains and view.find_drain(instance, context.now) is not None else 0


def in_role(instance: Instance, context: Context) -> int:
    """Those known to have the wanted role, then those of unknown role, then the writer in place of a reader."""
    if context.role is WantedRole.ANY:
        return 0
    if instance.role is Role.UNKNOWN:
        return 1
    return 2 if instance.role is Role.WRITER and context.role is not WantedRole.WRITER else 0


def is_listed(instance: Instance, context: Context) -> int:  # noqa: ARG001 - a preference
    """Those that the last complete answer listed, then those that it did not: they are about to leave."""
    return 0 if instance.missing_since is None else 1


def in_lag(instance: Instance, context: Context) -> int:
    """Those whose lag was within ``aurora_max_lag`` at the last look, then those that may be within it again."""
    limit = context.options.max_lag
    return 1 if limit is not None and _was_beyond(instance, limit) else 0


def in_zone(instance: Instance, context: Context) -> int:
    """The number of the instance's zone tier; elsewhere is one more than the last."""
    if not context.options.zones:
        return 0
    zone = context.zone(instance)
    is_own = zone is not None and zone == context.view.own_zone
    for number, tier in enumerate(context.options.zones):
        if zone in tier or (is_own and OWN_ZONE in tier):
            return number
    return len(context.options.zones)


PREFERENCES: tuple[Callable[[Instance, Context], int], ...] = (
    not_failed,
    not_drained,
    in_role,
    is_listed,
    in_lag,
    in_zone,
)


def rank(instance: Instance, context: Context) -> Rank:
    """How much an instance is preferred, by each of `PREFERENCES`; the lowest is best."""
    return tuple([each(instance, context) for each in PREFERENCES])
