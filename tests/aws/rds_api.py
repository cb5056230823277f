"""The describing calls of the RDS API on a loopback port, over real HTTP: for what moto does not have, and for faults.

Answers are written by botocore's own description of the service, so that botocore reads what AWS would send.
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree as ET

import botocore.session

_SERVICE = botocore.session.Session().get_service_model("rds")


class RdsServer:
    """A server of what it was given.

    Attributes:
        clusters: rows of DescribeDBClusters.
        instances: rows of DescribeDBInstances.
        endpoints: rows of DescribeDBClusterEndpoints.
        fault: the HTTP status, the code and the message of an error in place of answers; None: there is none.
        asked: the calls so far: (operation, its parameters).
        answered_at: when the last answer about custom endpoints was given, that says the present ones; None: not yet.
    """

    def __init__(self) -> None:
        self.clusters: list[dict[str, Any]] = []
        self.instances: list[dict[str, Any]] = []
        self._endpoints: list[dict[str, Any]] = []
        self.answered_at: float | None = None
        self.fault: tuple[int, str, str] | None = None
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.owner = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20.0)

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        return self._endpoints

    @endpoints.setter
    def endpoints(self, rows: list[dict[str, Any]]) -> None:
        self._endpoints, self.answered_at = rows, None

    def answer(self, operation: str, given: dict[str, str]) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        self.asked.append((operation, given))
        if self.fault is not None:
            return self.fault[0], _error(*self.fault[1:])
        filters = {
            given[f"Filters.Filter.{n}.Name"]: given[f"Filters.Filter.{n}.Values.Value.1"] for n in _numbers(given)
        }
        cluster = filters.get("db-cluster-id", given.get("DBClusterIdentifier"))
        key, rows, name = {
            "DescribeDBClusters": ("DBClusters", self.clusters, "DBClusterIdentifier"),
            "DescribeDBInstances": ("DBInstances", self.instances, "DBInstanceIdentifier"),
            "DescribeDBClusterEndpoints": ("DBClusterEndpoints", self.endpoints, "DBClusterEndpointIdentifier"),
        }[operation]
        found = [each for each in rows if given.get(name) in {None, each[name]}]
        found = [each for each in found if cluster in {None, each["DBClusterIdentifier"]}]
        if not found and name in given and operation != "DescribeDBClusterEndpoints":
            code = "DBClusterNotFoundFault" if key == "DBClusters" else "DBInstanceNotFound"
            return 404, _error(code, f"{given[name]} not found.")
        if rows is self._endpoints and self.answered_at is None:
            self.answered_at = time.monotonic()
        return 200, _write(operation, {key: found})


def _numbers(given: dict[str, str]) -> list[str]:
    return sorted({each.split(".")[2] for each in given if each.startswith("Filters.Filter.")})


def _write(operation: str, result: dict[str, Any]) -> bytes:
    answer = ET.Element(f"{operation}Response")
    _fill(ET.SubElement(answer, f"{operation}Result"), _SERVICE.operation_model(operation).output_shape, result)
    return ET.tostring(answer)


def _fill(element: ET.Element, shape: Any, value: Any) -> None:
    """Write a value as a shape of the service's description has it."""
    if shape.type_name == "structure":
        for name, each in value.items():
            member = shape.members[name]
            _fill(ET.SubElement(element, member.serialization.get("name", name)), member, each)
    elif shape.type_name == "list":
        for each in value:
            _fill(ET.SubElement(element, shape.member.serialization.get("name", "member")), shape.member, each)
    else:
        element.text = str(value)


def _error(code: str, message: str) -> bytes:
    answer = ET.Element("ErrorResponse")
    error = ET.SubElement(answer, "Error")
    for name, text in (("Type", "Sender"), ("Code", code), ("Message", message)):
        ET.SubElement(error, name).text = text
    return ET.tostring(answer)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        given = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
        operation = given.pop("Action")
        given.pop("Version")
        status, answer = self.server.owner.answer(operation, given)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Write no log."""
