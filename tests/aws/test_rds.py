"""The RDS API as a source of attributes: what is read, by which calls, and what goes wrong with it."""

from __future__ import annotations

from functools import lru_cache

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from aurora_router import InvalidOption
from aurora_router.attributes import Attributes, CustomEndpoint, DescriptionFailed, EndpointType, Question
from aurora_router.model.endpoint import parse_endpoint
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router_aws import RdsApi, rds, sdk, zone
from aurora_router_aws.rds import ONCE
from aurora_router_aws.zone import NOWHERE, OwnZone

from .conftest import KEY, SECRET_KEY
from .rds_api import RdsServer

DOMAIN = "c9akciq32.eu-west-1.rds.amazonaws.com"
CLUSTER, READER = f"demo.cluster-{DOMAIN}", f"demo.cluster-ro-{DOMAIN}"
OLAP = f"olap.cluster-custom-{DOMAIN}"


def instance(name, zone_name="eu-west-1a", cluster="demo", tier=1):
    return {
        "DBInstanceIdentifier": name,
        "DBClusterIdentifier": cluster,
        "Endpoint": {"Address": f"{name}.{DOMAIN}", "Port": 5432},
        "AvailabilityZone": zone_name,
        "DBInstanceClass": "db.r6g.large",
        "PromotionTier": tier,
    }


def custom(name="olap", kind="ANY", static=(), excluded=(), status="available"):
    return {
        "DBClusterEndpointIdentifier": name,
        "DBClusterIdentifier": "demo",
        "Endpoint": f"{name}.cluster-custom-{DOMAIN}",
        "EndpointType": "CUSTOM",
        "CustomEndpointType": kind,
        "StaticMembers": list(static),
        "ExcludedMembers": list(excluded),
        "Status": status,
    }


@pytest.fixture(scope="module")
def client_of():
    """Clients by the URL of their server, made once: that takes half a second."""
    return lru_cache(
        lambda url: boto3.client(
            "rds",
            region_name="eu-west-1",
            endpoint_url=url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries=ONCE),
        )
    )


@pytest.fixture(scope="module")
def server():
    with RdsServer() as server:
        yield server


@pytest.fixture
def api(server, client_of, monkeypatch):
    """A cluster of two, and another one, asked by a client that is there already."""
    monkeypatch.setattr(sdk, "find_client", lambda service, region, url, *_: client_of(url))
    return fill(server)


@pytest.fixture
def own_client(server, keys):
    """The same, asked by a client of the source's own."""
    return fill(server)


def fill(server):
    server.fault = None
    server.asked.clear()
    server.clusters = [{"DBClusterIdentifier": "demo", "Endpoint": CLUSTER, "ReaderEndpoint": READER}]
    server.instances = [instance("demo-1"), instance("demo-2", "eu-west-1b", tier=15), instance("x-1", cluster="x")]
    server.endpoints = [custom()]
    return server


def question(host, instances=(), **more):
    return Question(parse_endpoint(host), tuple(instances), **more)


def ask(server, host, instances=(), region=None, **more):
    return RdsApi(region, endpoint=server.url)(question(host, instances, **more))


TWO = {
    "demo-1": Attributes("eu-west-1a", "db.r6g.large", 1),
    "demo-2": Attributes("eu-west-1b", "db.r6g.large", 15),
}


@pytest.mark.parametrize(
    ("host", "instances", "first"),
    [
        (CLUSTER, [], "DescribeDBClusters"),
        (READER, [], "DescribeDBClusters"),
        (OLAP, [], "DescribeDBClusterEndpoints"),
        (f"demo-2.{DOMAIN}", [], "DescribeDBInstances"),
        ("10.0.0.1", ["demo-1", "demo-2"], "DescribeDBInstances"),
        ("db.example.com", ["demo-1", "demo-2"], "DescribeDBInstances"),
    ],
)
def test_the_cluster_is_found_by_whatever_name(api, host, instances, first):
    found = ask(api, host, instances, "eu-west-1")
    assert (found.cluster, found.instances, found.endpoints) == ("demo", TWO, None)
    assert [operation for operation, _ in api.asked] == [first, "DescribeDBInstances"]


def test_it_is_found_once_and_custom_endpoints_are_asked_for_only_where_they_are_wanted(api):
    assert ask(api, CLUSTER, cluster="demo").endpoints is None
    assert ask(api, CLUSTER, cluster="demo", endpoints=True).endpoints == {"olap": CustomEndpoint()}
    assert [operation for operation, _ in api.asked] == ["DescribeDBInstances"] * 2 + ["DescribeDBClusterEndpoints"]


@pytest.mark.parametrize(
    ("row", "read"),
    [
        (custom(static=["Demo-1"]), {"olap": CustomEndpoint(EndpointType.ANY, frozenset({"demo-1"}))}),
        (
            custom(kind="READER", excluded=["demo-1"]),
            {"olap": CustomEndpoint(EndpointType.READER, excluded=frozenset({"demo-1"}))},
        ),
        (custom(kind="WRITER", status="modifying"), {"olap": CustomEndpoint(EndpointType.WRITER)}),
        (custom(status="creating"), {}),
        (custom(status="deleting"), {}),
        (custom(status="inactive"), {}),
    ],
)
def test_custom_endpoints_are_read(api, row, read):
    reader = {**custom("demo"), "EndpointType": "READER", "Endpoint": READER}
    api.endpoints = [row, reader]
    assert ask(api, CLUSTER, endpoints=True).endpoints == read


@pytest.fixture
def moto(keys):
    """A cluster of two at moto; returns the name of its endpoint."""
    with mock_aws():
        client = boto3.client("rds", region_name="eu-west-1")
        login = {"MasterUsername": "app", "MasterUserPassword": "not-to-be-seen"}
        made = client.create_db_cluster(DBClusterIdentifier="demo", Engine="aurora-postgresql", **login)["DBCluster"]
        for number, zone_name in ((1, "eu-west-1a"), (2, "eu-west-1b")):
            client.create_db_instance(
                DBInstanceIdentifier=f"demo-{number}",
                DBClusterIdentifier="demo",
                DBInstanceClass="db.r6g.large",
                Engine="aurora-postgresql",
                AvailabilityZone=zone_name,
                PromotionTier=number,
            )
        sdk.forget()
        yield made["Endpoint"]
        sdk.forget()


def test_moto_is_read_as_the_server_of_these_tests_is(moto, monkeypatch):
    found = RdsApi()(question(moto))
    zones = {name: (each.zone, each.instance_class) for name, each in found.instances.items()}
    assert zones == {"demo-1": ("eu-west-1a", "db.r6g.large"), "demo-2": ("eu-west-1b", "db.r6g.large")}
    rows = boto3.client("ec2", region_name="eu-west-1").describe_availability_zones()["AvailabilityZones"]
    ids = {each["ZoneName"]: each["ZoneId"] for each in rows}
    monkeypatch.setattr(rds, "_zones", {})
    monkeypatch.setenv(zone.VARIABLE, ids["eu-west-1b"])
    assert RdsApi()(question(moto, own_zone=True)).own_zone == "eu-west-1b"


# ---------------------------------------------------------------- the zone of this process

THERE, HERE = "arn:aws:rds:eu-west-1:{}:db:demo-1".format, "111122223333"


def locate(api, monkeypatch, own, names=None, account=HERE):
    """The zone of this process and the advice, for a cluster in an account where zones have these names."""
    monkeypatch.setattr(rds, "find_own_zone", lambda: own)
    monkeypatch.setattr(rds, "_zones", {} if names is None else {("eu-west-1", None, None): names})
    for each in api.instances:
        each["DBInstanceArn"] = THERE(account)
    found = ask(api, CLUSTER, own_zone=True)
    assert found.instances == TWO
    return found.own_zone, found.advice


NAMES = {"euw1-az1": "eu-west-1c", "euw1-az2": "eu-west-1a"}


@pytest.mark.parametrize(
    ("own", "account", "found"),
    [
        (OwnZone("eu-west-1a", "euw1-az1", HERE), HERE, "eu-west-1a"),
        (OwnZone("eu-west-1a"), HERE, "eu-west-1a"),
        (OwnZone("eu-west-1a", "euw1-az1", HERE), "999988887777", "eu-west-1c"),
        (OwnZone(None, "euw1-az2"), HERE, "eu-west-1a"),
        (OwnZone(None, "euw1-az9"), HERE, None),
    ],
)
def test_in_another_account_the_id_of_the_zone_counts(api, monkeypatch, own, account, found):
    assert locate(api, monkeypatch, own, NAMES, account) == (found, None)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (NOWHERE, "the zone of this process is not known: set AURORA_ZONE to the name that the cluster's account has"),
        (
            OwnZone("eu-west-1a", None, HERE),
            "the zone of this process is eu-west-1a, but the cluster is in another account, which may have another",
        ),
    ],
)
def test_a_zone_that_cannot_be_named_is_advised_of(api, monkeypatch, own, told):
    found, advice = locate(api, monkeypatch, own, account="999988887777")
    assert found is None
    assert advice.startswith(told)


def test_without_permission_for_the_names_of_zones(api, monkeypatch):
    def refuse(doing, work):
        if "zones" in doing:
            raise sdk.Failed("cannot find them: UnauthorizedOperation", "UnauthorizedOperation")
        return work()

    monkeypatch.setattr(sdk, "attempt", refuse)
    found, advice = locate(api, monkeypatch, OwnZone(None, "euw1-az1"))
    assert found is None
    assert advice.endswith("(cannot find them: UnauthorizedOperation): permit ec2:DescribeAvailabilityZones")


def test_the_zone_is_known_also_while_the_api_does_not_answer(own_client, monkeypatch):
    own_client.fault = (400, "Throttling", "Rate exceeded")
    monkeypatch.setenv(zone.VARIABLE, "eu-west-1b")
    with pytest.raises(DescriptionFailed) as caught:
        ask(own_client, CLUSTER, own_zone=True)
    assert caught.value.own_zone == "eu-west-1b"


def test_the_zone_is_known_also_where_the_cluster_is_not_found(api, monkeypatch):
    monkeypatch.setenv(zone.VARIABLE, "eu-west-1b")
    with pytest.raises(DescriptionFailed, match="does not say its region") as caught:
        ask(api, "db.example.com", own_zone=True)
    assert caught.value.own_zone == "eu-west-1b"


def test_the_zone_is_looked_for_only_where_it_is_wanted(api, monkeypatch):
    monkeypatch.setattr(rds, "find_own_zone", lambda: pytest.fail("it was looked for"))
    assert ask(api, CLUSTER).own_zone is None


# ---------------------------------------------------------------- what goes wrong


def fail(server, host=CLUSTER, instances=(), **more):
    with pytest.raises(DescriptionFailed) as caught:
        ask(server, host, instances, **more)
    return str(caught.value), caught.value.lasting


def test_without_permission(own_client):
    api = own_client
    told = "User: arn:aws:iam::1:user/app is not authorized to perform: rds:DescribeDBClusters"
    api.fault = (403, "AccessDenied", told)
    text, lasting = fail(api)
    assert text == (
        f"cannot describe the cluster by the RDS API: AccessDenied: {told} (permit it in the policy of that identity)"
    )
    assert lasting
    assert len(api.asked) == 1


def test_throttled_it_is_not_asked_again_by_botocore(own_client):
    api = own_client
    api.fault = (400, "Throttling", "Rate exceeded")
    text, lasting = fail(api)
    assert text == "cannot describe the cluster by the RDS API: Throttling: Rate exceeded"
    assert not lasting
    assert len(api.asked) == 1


def test_the_cluster_of_another_account(api):
    text, lasting = fail(api, f"demo.cluster-c0ther1234.{DOMAIN.partition('.')[2]}")
    assert text.startswith(f"what the RDS API has as demo is {CLUSTER} and {READER}, and not demo.cluster-c0ther1234")
    assert lasting


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (f"none.cluster-{DOMAIN}", "DBClusterNotFoundFault: none not found. (check the account and the region)"),
        (f"none.{DOMAIN}", "DBInstanceNotFound: none not found. (check the account and the region)"),
        (f"none.cluster-custom-{DOMAIN}", f"has nothing of the name none.cluster-custom-{DOMAIN}: check the account"),
    ],
)
def test_what_is_not_there(api, host, told):
    text, lasting = fail(api, host)
    assert told in text
    assert lasting


def test_an_own_name_before_an_instance_is_known(api):
    assert fail(api, "db.example.com", region="eu-west-1") == ("no instance of db.example.com is known yet", False)


def test_no_region(api):
    text, lasting = fail(api, "db.example.com", ["demo-1"])
    assert text.startswith("db.example.com does not say its region, nor does the environment: set aurora_aws_region or")
    assert lasting


def test_no_credentials(own_client, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    text, lasting = fail(own_client)
    assert "NoCredentialsError" in text
    assert lasting


def test_without_botocore(api, monkeypatch):
    def missing(module):
        raise ImportError(f"No module named 'botocore.{module}'")

    monkeypatch.setattr(sdk, "_botocore", missing)
    text, lasting = fail(api)
    assert text.endswith("pip install 'aurora-router[aws]'")
    assert lasting


def test_an_instance_of_no_cluster(api):
    api.instances[0]["DBClusterIdentifier"] = ""
    assert fail(api, f"demo-1.{DOMAIN}")[0] == f"demo-1.{DOMAIN} belongs to no cluster, says the RDS API"


# ---------------------------------------------------------------- options


def source(**options):
    return read_connect_args(f"host={CLUSTER}", {"aurora_attributes": "rds", **options}).params.attributes


def test_it_is_made_from_the_options_of_a_connection():
    assert source() == RdsApi()
    made = source(aurora_aws_region="eu-west-1", aurora_aws_profile="orders", aurora_rds_endpoint="http://127.0.0.1:1/")
    assert made == RdsApi("eu-west-1", "orders", "http://127.0.0.1:1/")


def test_options_are_shared_with_a_provider_of_credentials():
    args = read_connect_args(
        f"host={CLUSTER} user=app",
        {
            "aurora_attributes": "rds",
            "aurora_credentials": "env",
            "aurora_env_user": "ME",
            "aurora_aws_region": "eu-west-1",
        },
    )
    assert args.params.attributes == RdsApi("eu-west-1")
    assert args.params.provider.user == "ME"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"aurora_rds_endpoint": "http://127.0.0.1:1"}, "aurora_rds_endpoint has no effect without aurora_attributes"),
        (
            {"aurora_rds_endpoint": "http://127.0.0.1:1", "aurora_credentials": "iam"},
            "aurora_rds_endpoint has no effect without aurora_attributes: remove it",
        ),
        (
            {"aurora_attributes": "rds", "aurora_monitor": "off"},
            "aurora_attributes has no effect with aurora_monitor=off",
        ),
        ({"aurora_zones": "own"}, "aurora_zones=own needs aurora_attributes=rds"),
        ({"aurora_attributes": "nosuch"}, "no source of attributes of that name"),
        ({"aurora_attributes": "rds", "aurora_secret": "x"}, "aurora_secret has no effect without aurora_credentials"),
        (
            {"aurora_attributes": "rds", "aurora_credentials": "iam", "aurora_secret": "x"},
            "aurora_secret has no effect with aurora_credentials=iam: remove it",
        ),
    ],
)
def test_options_without_effect_are_refused(options, told):
    with pytest.raises(InvalidOption, match=told):
        read_connect_args(f"host={CLUSTER} user=app", options)
