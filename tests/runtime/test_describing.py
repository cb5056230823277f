"""Sources of attributes are asked in threads of their own, one question per cluster at a time."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest

from aurora_router.attributes import Attributes, CustomEndpoint, Description, DescriptionFailed
from aurora_router.flow.probe import Access
from aurora_router.model.endpoint import EndpointKind
from aurora_router.model.event import ConfigurationAdvice
from aurora_router.policy.describe_schedule import FIRST_PAUSE, INTERVAL, QUIET_FAILURES, DescribeSchedule
from aurora_router.policy.route import route
from aurora_router.runtime import describing
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.describing import describer_of
from aurora_router.runtime.registry import Registry

DOMAIN = "c9akciq32.eu-west-1.rds.amazonaws.com"
SEEN = Description("demo", {"demo-1": Attributes("eu-west-1a")}, {"olap": CustomEndpoint()})


@dataclass(eq=False)
class Source:
    """A source that says what it is given, and remembers what it was asked, and where."""

    answer: Any = SEEN
    asked: list[Any] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    holds: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self.holds.set()

    def __call__(self, question):
        self.threads.append(threading.current_thread())
        self.asked.append(question)
        assert self.holds.wait(20.0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def access(host, source, options=""):
    args = read_connect_args(f"host={host} user=app {options}", {})
    params = type(args.params)(args.params)
    params.attributes = source
    return Access(args.request, route(args.request), args.sources, params)


class Scene:
    """A cluster, and the users that connect to it."""

    def __init__(self, source, host=f"demo.cluster-{DOMAIN}"):
        self.source = source
        self.accesses = [access(host, source)]
        self.cluster = Registry().find(self.accesses[0].request, self.accesses[0].route)
        self.describer = describer_of(self.cluster)

    def tick(self):
        """One look of the monitor's, and the end of what it asked."""
        before = len(self.source.threads)
        self.describer.tick(self.cluster, self.accesses)
        self.settle()
        return len(self.source.threads) - before

    def settle(self):
        until = time.monotonic() + 20.0
        while self.describer._is_asking:
            assert time.monotonic() < until
            time.sleep(0.001)

    def advice(self):
        return [str(event) for _, event in self.cluster.state.trail if isinstance(event, ConfigurationAdvice)]

    def make_due(self):
        self.describer._schedule = DescribeSchedule(failures=self.describer._schedule.failures)


def test_an_answer_is_in_the_view_and_the_next_question_is_later():
    scene = Scene(Source())
    assert [scene.tick(), scene.tick()] == [1, 0]
    assert scene.cluster.view.attributes == SEEN.instances
    assert INTERVAL / 2 - 1 < scene.describer._schedule.next_at - time.monotonic() < INTERVAL * 1.5
    (question,) = scene.source.asked
    assert (question.endpoint.label, question.endpoints, question.cluster) == ("demo", False, None)


def test_it_is_asked_in_no_thread_of_the_callers_and_not_twice_at_once():
    scene = Scene(Source())
    scene.source.holds.clear()
    scene.describer.tick(scene.cluster, scene.accesses)
    scene.make_due()
    scene.describer.tick(scene.cluster, scene.accesses)
    scene.source.holds.set()
    scene.settle()
    (thread,) = scene.source.threads
    assert thread is not threading.current_thread()
    assert thread.daemon
    thread.join(20.0)
    assert not thread.is_alive()


def test_the_id_of_the_cluster_is_found_once():
    scene = Scene(Source())
    scene.tick()
    scene.make_due()
    scene.tick()
    assert [each.cluster for each in scene.source.asked] == [None, "demo"]


def test_custom_endpoints_are_asked_for_as_soon_as_one_is_used():
    scene = Scene(Source())
    scene.tick()
    scene.accesses.insert(0, access(f"olap.cluster-custom-{DOMAIN}", None))
    assert scene.tick() == 1
    assert [each.endpoints for each in scene.source.asked] == [False, True]
    assert {each.endpoint.kind for each in scene.source.asked} == {EndpointKind.CLUSTER}, "it names the cluster itself"


def test_the_own_zone_is_asked_for_as_soon_as_a_user_prefers_it():
    scene = Scene(Source(Description("demo", advice="set AURORA_ZONE")))
    scene.tick()
    scene.accesses.append(access(f"demo.cluster-{DOMAIN}", scene.source, "aurora_attributes=rds aurora_zones=own"))
    assert [scene.tick(), scene.tick()] == [1, 0]
    assert [each.own_zone for each in scene.source.asked] == [False, True]
    assert scene.advice() == ["set AURORA_ZONE"]


@pytest.mark.parametrize("answer", [SEEN, DescriptionFailed("no permission", lasting=True)])
def test_users_with_different_sources_in_turns_do_not_have_it_asked_more_often(answer):
    scene, other = Scene(Source(answer)), Source(answer)
    scene.tick()
    for source in (other, scene.source) * 3:
        scene.accesses.append(access(f"demo.cluster-{DOMAIN}", source))
        scene.tick()
    assert len(scene.source.asked) + len(other.asked) == 1


def test_another_source_is_asked_soon_if_the_one_before_fails():
    scene = Scene(Source(DescriptionFailed("no permission", lasting=True)))
    scene.tick()
    scene.accesses.append(access(f"demo.cluster-{DOMAIN}", Source()))
    scene.tick()
    assert scene.describer._schedule.next_at - time.monotonic() <= FIRST_PAUSE


def test_a_change_of_the_instances_is_noticed():
    scene = Scene(Source())
    scene.tick()
    scene.describer._schedule = scene.describer._schedule.see((frozenset({"demo-7"}), None), -1e9, 0.0)
    assert scene.describer._schedule.has_changed


def test_users_without_a_source_cost_nothing():
    scene = Scene(Source())
    scene.accesses = [access(f"demo.cluster-{DOMAIN}", None)]
    assert scene.tick() == 0


def test_what_lasts_is_advised_of_at_once_and_once():
    scene = Scene(Source(DescriptionFailed("no permission (permit it)", lasting=True)))
    for _ in range(QUIET_FAILURES + 1):
        scene.tick()
        scene.make_due()
    told = "no permission (permit it); until that changes, connections are routed by SQL and DNS alone"
    assert scene.advice() == [told]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (DescriptionFailed("it is throttled"), "it is throttled"),
        (ZeroDivisionError("no"), "the source of attributes raised ZeroDivisionError: no"),
    ],
)
def test_what_passes_is_advised_of_when_it_does_not(answer, told):
    scene = Scene(Source(answer))
    for _ in range(QUIET_FAILURES - 1):
        scene.tick()
        scene.make_due()
    assert scene.advice() == []
    scene.tick()
    assert scene.advice()[0].startswith(told)


def test_an_answer_that_is_none_is_a_failure():
    scene = Scene(Source("eu-west-1a"))
    scene.tick()
    assert "returned a str, and has to return a Description" in scene.advice()[0]


def test_a_failure_keeps_what_is_known_until_that_is_too_old(monkeypatch):
    scene = Scene(Source())
    scene.tick()
    scene.source.answer = DescriptionFailed("it is throttled", own_zone="eu-west-1b")
    scene.make_due()
    scene.tick()
    view = scene.cluster.view
    assert (view.attributes, view.endpoints, view.own_zone) == (SEEN.instances, SEEN.endpoints, "eu-west-1b")
    monkeypatch.setattr("aurora_router.model.view.MEMBERS_SECONDS", -1.0)
    scene.make_due()
    scene.tick()
    assert (scene.cluster.view.attributes, scene.cluster.view.endpoints) == (SEEN.instances, {})


def test_without_a_thread_it_is_a_failure_like_others(monkeypatch):
    scene = Scene(Source())

    def refuse(function, name):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(describing.native, "start_thread", refuse)
    assert scene.tick() == 0
    assert scene.describer._schedule.failures == 1


def test_a_describer_does_not_keep_its_cluster():
    scene = Scene(Source())
    scene.tick()
    gone, scene.cluster = weakref.ref(scene.cluster), None
    for thread in scene.source.threads:
        thread.join(20.0)
    gc.collect()
    assert gone() is None
