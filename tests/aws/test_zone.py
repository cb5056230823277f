"""The zone of this process: by the environment, by a container's task, by the instance; and what if nothing has it."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aurora_router_aws import zone
from aurora_router_aws.zone import NOWHERE, OwnZone, find_own_zone

TASK = {"AvailabilityZone": "eu-west-1b", "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/default/0f9d"}
INSTANCE = {
    "/latest/meta-data/placement/availability-zone": "eu-west-1a",
    "/latest/meta-data/placement/availability-zone-id": "euw1-az1",
    "/latest/dynamic/instance-identity/document": json.dumps({"accountId": "111122223333"}),
}


class Metadata:
    """A metadata service on a loopback port; it wants the token of version 2 for what an instance has."""

    def __init__(self, pages):
        self.pages, self.asked, owner = pages, [], self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                owner.asked.append(("PUT", self.path))
                ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                self.say("secret" if self.path == "/latest/api/token" and ttl else None)

            def do_GET(self):
                owner.asked.append(("GET", self.path))
                permitted = self.path == "/task" or self.headers.get("X-aws-ec2-metadata-token") == "secret"
                self.say(owner.pages.get(self.path) if permitted else None)

            def say(self, text):
                body = (text or "no").encode()
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(20.0)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    for name in (zone.VARIABLE, "ECS_CONTAINER_METADATA_URI_V4"):
        monkeypatch.delenv(name, raising=False)
    zone.forget()
    yield
    zone.forget()


@pytest.fixture
def on_instance(monkeypatch):
    def serve(pages):
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
        service = Metadata(pages)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{service.url}/")
        return service

    return serve


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("eu-west-1c", OwnZone("eu-west-1c")),
        (" euw1-az3 ", OwnZone(id="euw1-az3")),
        ("use1-lax1-az1", OwnZone(id="use1-lax1-az1")),
    ],
)
def test_the_environment_counts_before_all_else(monkeypatch, on_instance, value, found):
    monkeypatch.setenv(zone.VARIABLE, value)
    with on_instance(INSTANCE) as service:
        assert find_own_zone() == found
    assert service.asked == []


def test_a_task_says_its_zone_and_its_account(monkeypatch):
    with Metadata({"/task": json.dumps(TASK)}) as service:
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", service.url)
        assert find_own_zone() == OwnZone("eu-west-1b", None, "111122223333")


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", json.dumps({"TaskARN": "arn:aws:ecs"}), None])
def test_a_task_that_does_not_say_it(monkeypatch, text):
    with Metadata({"/task": text}) as service:
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", service.url)
        assert find_own_zone() == NOWHERE


def test_an_instance_is_asked_with_a_token_and_once_per_process(on_instance):
    with on_instance(INSTANCE) as service:
        assert find_own_zone() == find_own_zone() == OwnZone("eu-west-1a", "euw1-az1", "111122223333")
    assert service.asked == [("PUT", "/latest/api/token"), *(("GET", path) for path in INSTANCE)]


@pytest.mark.parametrize(
    ("pages", "found"),
    [
        ({path: text for path, text in INSTANCE.items() if not path.endswith("-id")}, ("eu-west-1a", None)),
        ({path: text for path, text in INSTANCE.items() if path.endswith("-id")}, (None, "euw1-az1")),
        ({**INSTANCE, "/latest/dynamic/instance-identity/document": "[]"}, ("eu-west-1a", "euw1-az1")),
        ({}, (None, None)),
    ],
)
def test_what_an_instance_does_not_say_is_not_known(on_instance, pages, found):
    with on_instance(pages):
        assert (find_own_zone().name, find_own_zone().id) == found


def test_the_metadata_service_can_be_switched_off(monkeypatch, on_instance):
    with on_instance(INSTANCE) as service:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert find_own_zone() == NOWHERE
    assert service.asked == []


def test_nothing_answers(monkeypatch, on_instance):
    with on_instance(INSTANCE):
        pass
    assert find_own_zone() == NOWHERE


def test_a_child_of_a_fork_looks_again(on_instance):
    with on_instance(INSTANCE):
        find_own_zone()
    child = os.fork()
    if child == 0:
        os._exit(0 if zone._found is NOWHERE else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert find_own_zone().is_known
