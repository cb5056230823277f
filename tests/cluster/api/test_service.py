"""Requests that are refused, and how; no cluster runs here."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

pytest.importorskip("botocore")

from aurora_router_cluster.api.account import Account
from aurora_router_cluster.api.service import Service
from aurora_router_cluster.errors import (
    ClusterNotFoundError,
    FailoverImpossibleError,
    SupervisorError,
    TargetError,
    UnknownInstanceError,
    WriterRequiredError,
)
from tests.cluster.api.signing import KEY, SECRET, signed

VERSION = {"Version": "2014-10-31"}
NAMESPACE = "{http://rds.amazonaws.com/doc/2014-10-31/}"


@pytest.fixture
def ask(state):
    service = Service({KEY: SECRET})

    def ask(parameters, **how):
        return service.respond(signed({**VERSION, **parameters}, **how))

    return ask


def error(response):
    root = ET.fromstring(response.body)
    assert root.tag == f"{NAMESPACE}ErrorResponse"
    inner = root.find(f"{NAMESPACE}Error")
    assert root.findtext(f"{NAMESPACE}RequestId") == response.request_id
    return response.status, inner.findtext(f"{NAMESPACE}Code"), inner.findtext(f"{NAMESPACE}Message")


@pytest.mark.parametrize(
    ("parameters", "status", "code", "text"),
    [
        ({"Action": "DescribeNothing"}, 400, "InvalidAction", "Could not find operation DescribeNothing for version"),
        ({"Action": "CreateDBCluster", "DBClusterIdentifier": "a", "Engine": "b"}, 400, "InvalidAction", "CreateDB"),
        ({}, 400, "MissingAction", "Action"),
        ({"Action": "FailoverDBCluster"}, 400, "MissingParameter", "DBClusterIdentifier"),
        ({"Action": "FailoverDBCluster", "DBClusterIdentifier": "x"}, 404, "DBClusterNotFoundFault", "DBCluster x not"),
        ({"Action": "DescribeDBClusters", "DBClusterIdentifier": "x"}, 404, "DBClusterNotFoundFault", "DBCluster x"),
        ({"Action": "DescribeDBInstances", "DBInstanceIdentifier": "x"}, 404, "DBInstanceNotFound", "DBInstance x not"),
        ({"Action": "RebootDBInstance", "DBInstanceIdentifier": "x"}, 404, "DBInstanceNotFound", "DBInstance x not"),
        ({"Action": "DescribeDBClusterEndpoints", "DBClusterIdentifier": "x"}, 404, "DBClusterNotFoundFault", "x not"),
        ({"Action": "DescribeEvents", "SourceIdentifier": "x"}, 400, "InvalidParameterCombination", "SourceType"),
        ({"Action": "DescribeEvents", "StartTime": "2020-01-02", "EndTime": "2020-01-01"}, 400,
         "InvalidParameterCombination", "later"),
        ({"Action": "DescribeEvents", "Duration": "9" * 12}, 400, "InvalidParameterValue", "out of range"),
        ({"Action": "DescribeDBClusters", "MaxRecords": "5"}, 400, "InvalidParameterValue", "between 20 and 100"),
        ({"Action": "DescribeDBClusters", "Filters.Filter.1.Name": "colour", "Filters.Filter.1.Values.Value.1": "red"},
         400, "InvalidParameterValue", "Unrecognized filter name: colour"),
        ({"Action": "DescribeEvents", "Filters.Filter.1.Name": "a", "Filters.Filter.1.Values.Value.1": "b"}, 400,
         "InvalidParameterCombination", "Filters cannot be set for a local cluster"),
        ({"Action": "RebootDBInstance", "DBInstanceIdentifier": "x", "ForceFailover": "true"}, 400,
         "InvalidParameterCombination", "FailoverDBCluster"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_as_aws_does(ask, parameters, status, code, text):
    found = error(ask(parameters))
    assert found[:2] == (status, code)
    assert text in found[2]


@pytest.mark.parametrize("name", ["DBClusters", "DBInstances", "DBClusterEndpoints", "Events"])
@pytest.mark.parametrize("presign", [False, True])
def test_without_clusters_lists_are_empty(ask, name, presign):
    response = ask({"Action": f"Describe{name}"}, presign=presign)
    assert response.status == 200
    result = ET.fromstring(response.body).find(f"{NAMESPACE}Describe{name}Result")
    assert [(child.tag, len(child)) for child in result] == [(f"{NAMESPACE}{name}", 0)]


def test_without_a_signature_nothing_is_said_about_operations(ask):
    assert error(ask({"Action": "DescribeNothing"}, secret="other"))[1] == "SignatureDoesNotMatch"


def test_parameters_that_are_no_text_are_refused(state):
    from dataclasses import replace

    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    made = AWSRequest("POST", "http://127.0.0.1:5055/", data=b"Action=%ff")
    SigV4Auth(Credentials(KEY, SECRET), "rds", "eu-test-1").add_auth(made)
    headers = {"host": "127.0.0.1:5055", **{name.lower(): value for name, value in made.headers.items()}}
    request = replace(signed({}), headers=headers, body=b"Action=%ff")
    assert error(Service({KEY: SECRET}).respond(request))[1] == "MalformedQueryString"


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (ClusterNotFoundError("gone"), 404, "DBClusterNotFoundFault"),
        (FailoverImpossibleError("no reader"), 400, "InvalidDBClusterStateFault"),
        (UnknownInstanceError("none"), 404, "DBInstanceNotFound"),
        (WriterRequiredError("writer"), 400, "InvalidDBInstanceState"),
        (TargetError("future"), 400, "InvalidParameterValue"),
        (SupervisorError("hangs"), 500, "InternalFailure"),
        (ZeroDivisionError("ours"), 500, "InternalFailure"),
    ],
)
def test_what_a_supervisor_refuses_has_a_code(raised, status, code):
    class Failing(Account):
        @property
        def clusters(self):
            raise raised

    service = Service({KEY: SECRET}, account=Failing)
    assert error(service.respond(signed({**VERSION, "Action": "DescribeDBClusters"})))[:2] == (status, code)
