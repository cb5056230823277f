"""The query protocol, against botocore's own serialiser and parser."""

from __future__ import annotations

import string
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("botocore")

from botocore.parsers import QueryParser
from botocore.serialize import QuerySerializer

from aurora_router_cluster.api.actions import ACTIONS
from aurora_router_cluster.api.errors import ApiError, Fault
from aurora_router_cluster.api.protocol import Protocol

PROTOCOL = Protocol()
OPERATIONS = {name: PROTOCOL.model.operation_model(name) for name in ACTIONS}
times = st.integers(0, 10**10).map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc))
SCALARS = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "timestamp": times,
}


ANY_TEXT = st.characters(codec="utf-8")


def values(shape, *, deep=4, text=ANY_TEXT, members=None):
    """Any value of a shape; `members`: those of a structure that it may have, None: all."""
    if shape.type_name == "structure":
        optional = {
            name: values(member, deep=deep - 1, text=text)
            for name, member in shape.members.items()
            if (members is None or name in members) and (deep > 0 or member.type_name not in {"structure", "list"})
        }
        required = {name: optional.pop(name) for name in shape.required_members if name in optional}
        return st.fixed_dictionaries(required, optional=optional)
    if shape.type_name == "list":
        return st.lists(values(shape.member, deep=deep - 1, text=text), max_size=3)
    if shape.type_name == "string":
        return st.sampled_from(shape.enum) if shape.enum else st.text(text, max_size=8)
    return SCALARS[shape.type_name]


def as_text(value):
    return str(value) if not isinstance(value, bool) else str(value).lower()


@given(st.data())
def test_what_a_client_sends_is_what_an_operation_gets(data):
    name = data.draw(st.sampled_from(sorted(OPERATIONS)))
    operation = OPERATIONS[name]
    sent = data.draw(values(operation.input_shape, members=ACTIONS[name].members))
    body = QuerySerializer().serialize_to_request(sent, operation)["body"]
    assert PROTOCOL.parse(operation, {name: as_text(value) for name, value in body.items()}) == sent


XML_TEXT = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")


@settings(max_examples=12)  # the shapes are large
@given(st.data())
def test_what_an_operation_returns_is_what_a_client_gets(data):
    operation = OPERATIONS[data.draw(st.sampled_from(sorted(OPERATIONS)))]
    returned = data.draw(values(operation.output_shape, text=XML_TEXT))
    body = PROTOCOL.serialise(operation, returned, "4711")
    parsed = QueryParser().parse({"status_code": 200, "headers": {}, "body": body}, operation.output_shape)
    assert parsed.pop("ResponseMetadata")["RequestId"] == "4711"
    assert parsed == returned


@given(st.text(st.characters()))
def test_an_error_is_what_a_client_raises_whatever_is_in_its_message(message):
    body = PROTOCOL.serialise_error(ApiError("Some.Code", message), "4711")
    parsed = QueryParser().parse({"status_code": 400, "headers": {}, "body": body}, None)
    assert parsed["Error"]["Code"] == "Some.Code"
    assert parsed["Error"]["Type"] == "Sender"
    assert parsed["ResponseMetadata"]["RequestId"] == "4711"
    if message.isprintable() and message:
        assert parsed["Error"]["Message"] == message


@given(st.dictionaries(st.text(string.printable, max_size=30), st.text(max_size=5), max_size=6))
def test_no_parameters_break_it(parameters):
    for operation in OPERATIONS.values():
        try:
            PROTOCOL.parse(operation, parameters)
        except ApiError as error:
            assert error.code in {"MissingParameter", "InvalidParameterValue"}  # noqa: PT017 - the type is expected


@pytest.mark.parametrize(
    ("operation", "parameters", "code", "text"),
    [
        ("DescribeDBClusters", {"MaxRecords": "many"}, "InvalidParameterValue", "'many' for MaxRecords.*type integer"),
        ("DescribeDBClusters", {"MaxRecords": "1_0"}, "InvalidParameterValue", "type integer"),
        ("DescribeDBClusters", {"MaxRecords": "9" * 5000}, "InvalidParameterValue", "type integer"),
        ("DescribeDBClusters", {"IncludeShared": "yes"}, "InvalidParameterValue", "type boolean"),
        ("DescribeDBClusters", {"Filters.Filter.1.Name": "x"}, "InvalidParameterValue", "Values"),
        ("DescribeEvents", {"StartTime": "soon"}, "InvalidParameterValue", "type timestamp"),
        ("DescribeEvents", {"StartTime": "1e400"}, "InvalidParameterValue", "type timestamp"),
        ("FailoverDBCluster", {}, "MissingParameter", "must contain the parameter DBClusterIdentifier"),
    ],
)
def test_parameters_that_do_not_fit_are_named(operation, parameters, code, text):
    with pytest.raises(ApiError, match=text) as caught:
        PROTOCOL.parse(OPERATIONS[operation], parameters)
    assert caught.value.code == code


def test_a_time_without_an_offset_is_in_utc():
    operation = OPERATIONS["DescribeEvents"]
    parsed = PROTOCOL.parse(operation, {"StartTime": "2020-01-02", "EndTime": "2020-01-02T03:00+02:00"})
    assert parsed["StartTime"] == datetime(2020, 1, 2, tzinfo=timezone.utc)
    assert parsed["EndTime"] == datetime(2020, 1, 2, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        (None, "2014-10-31", "MissingAction"),
        ("DescribeDBClusters", None, "MissingParameter"),
        ("DescribeDBClusters", "2013-01-10", "InvalidAction"),
        ("DescribeNothing", "2014-10-31", "InvalidAction"),
    ],
)
def test_an_operation_that_does_not_exist_is_refused(name, version, code):
    with pytest.raises(ApiError) as caught:
        PROTOCOL.operation(name, version)
    assert caught.value.code == code


def test_a_member_that_the_service_does_not_have_is_a_mistake_of_ours():
    with pytest.raises(KeyError, match="Colour"):
        PROTOCOL.serialise(OPERATIONS["DescribeDBClusters"], {"Colour": "red"}, "4711")


def test_every_action_is_an_operation_and_uses_members_that_it_has():
    for name, action in ACTIONS.items():
        assert action.members <= OPERATIONS[name].input_shape.members.keys()
        assert set(OPERATIONS[name].input_shape.required_members) <= action.members


def test_a_declared_error_has_its_own_code_and_status():
    error = PROTOCOL.error_of(Fault("DBInstanceNotFoundFault", "there is none"))
    assert (error.code, error.status, error.message) == ("DBInstanceNotFound", 404, "there is none")
