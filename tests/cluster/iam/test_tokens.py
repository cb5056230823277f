"""Tokens that botocore signs are accepted where they belong, and nowhere else."""

from __future__ import annotations

import datetime as dt

import pytest

pytest.importorskip("botocore")

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from aurora_router_cluster.errors import DirectoryError
from aurora_router_cluster.iam.keys import Keys, keep_keys
from aurora_router_cluster.iam.tokens import Place, Token, TokenRejected, check_token

KEYS = Keys("AKIAQ2XAMPLEQ2XAMPLE", "wJalrXUtnFEMI-K7MDENG+bPxRfiCYEXAMPLEKEY")
HOST = "demo-1.c9akciq32.eu-west-1.rds.amazonaws.com"
CLUSTER = "demo.cluster-c9akciq32.eu-west-1.rds.amazonaws.com"
PLACE = Place((HOST, CLUSTER), 5432, "eu-west-1")


def sign(
    host=HOST, port=5432, user="seller", region="eu-west-1", service="rds-db", seconds=900, keys=KEYS, session=None,
    action="connect",
):  # fmt: skip
    """A token, by botocore."""
    request = AWSRequest("GET", f"https://{host}:{port}/?Action={action}&DBUser={user}")
    credentials = Credentials(keys.access_key_id, keys.secret_access_key, session)
    SigV4QueryAuth(credentials, service, region, expires=seconds).add_auth(request)
    return request.url.removeprefix("https://")


def check(token, *, user="seller", later=0.0, lifetime=900.0):
    now = dt.datetime.now(dt.timezone.utc).timestamp() + later
    check_token(token, user, PLACE, KEYS, lifetime=lifetime, now=now)


@pytest.mark.parametrize(
    "options",
    [{}, {"host": HOST.upper()}, {"host": CLUSTER}, {"session": "x/+=" * 400}, {"seconds": 60}],
    ids=["instance", "upper-case", "cluster", "session", "short"],
)
def test_a_token_lets_its_user_in(options):
    check(sign(**options))


@pytest.mark.parametrize("user", ["a user", "ärger", "a&DBUser=seller", "50%+", "a/b=c~d", "uid=x,cn=demo-1"])
def test_any_name_of_a_user_is_read(user):
    from urllib.parse import quote

    check(sign(user=quote(user, safe="")), user=user)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"host": "demo-2.c9akciq32.eu-west-1.rds.amazonaws.com"}, "signed for demo-2.*this instance is demo"),
        ({"host": "x.cluster-custom-c9akciq32.eu-west-1.rds.amazonaws.com"}, "signed for x.cluster-custom"),
        ({"port": 5433}, r"signed for demo-1.*:5433, and this instance is .*port 5432"),
        ({"region": "eu-west-2"}, "the region eu-west-2, and this is eu-west-1"),
        ({"service": "rds"}, "the service rds, and a database's is rds-db"),
        ({"action": "describe"}, "the service rds-db"),
        ({"user": "other"}, "signed for the user other"),
        ({"seconds": 901}, "signed for 901 s, and 900 s is the longest"),
        ({"keys": Keys("AKIAOTHER", "other")}, "by the key AKIAOTHER, and this cluster knows AKIAQ2"),
        ({"keys": Keys(KEYS.access_key_id, "other")}, "not signed with the secret of AKIAQ2"),
    ],
)
def test_another_one_is_rejected(options, why):
    token = sign(**options)
    with pytest.raises(TokenRejected, match=why) as rejected:
        check(token)
    signature = token.rpartition("=")[2]
    assert signature not in str(rejected.value)
    assert KEYS.secret_access_key not in str(rejected.value)


@pytest.mark.parametrize(
    ("later", "lifetime", "seconds", "why"),
    [
        (895.0, 900.0, 900, None),
        (902.0, 900.0, 900, "it was signed 90[23] s ago, and counts for 900 s"),
        (12.0, 10.0, 900, "counts for 10 s"),
        (62.0, 900.0, 60, "counts for 60 s"),
        (-290.0, 900.0, 900, None),
        (-302.0, 900.0, 900, "30[12] s in the future: set the clock"),
    ],
)
def test_it_counts_for_a_while(later, lifetime, seconds, why):
    token = sign(seconds=seconds)
    if why is None:
        check(token, later=later, lifetime=lifetime)
    else:
        with pytest.raises(TokenRejected, match=why):
            check(token, later=later, lifetime=lifetime)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda token: "a password", "no IAM token"),
        (lambda token: "", "no IAM token"),
        (lambda token: token[:-70], "no IAM token|cut short"),
        (lambda token: token.replace("/?", "/x?"), "cut short, or changed"),
        (lambda token: token + "&DBUser=seller", "cut short, or changed"),
        (lambda token: token.replace("seller", "other"), "or was changed"),
        (lambda token: token.replace("X-Amz-Expires=900", "X-Amz-Expires=600"), "or was changed"),
        (lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"), "or was changed"),
        (lambda token: token[:-1] + "ä", "or was changed"),
        (lambda token: token.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), "not signed by version 4"),
        (lambda token: token.replace("aws4_request", "aws5_request"), "not signed by version 4"),
    ],
)
def test_what_was_changed_is_rejected(change, why):
    with pytest.raises(TokenRejected, match=why):
        check(change(sign()))


def test_the_port_of_https_is_not_signed_as_clients_of_https_do_not_send_it():
    assert Token.parse(sign(port=443)).is_signed_by(KEYS.secret_access_key)


def test_keys_are_kept_for_their_owner_alone(tmp_path):
    path = tmp_path / "keys"
    made = keep_keys(path, "eu-west-1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keep_keys(path, "eu-west-2") == made
    assert made.secret_access_key not in repr(made)
    assert keep_keys(tmp_path / "others", "eu-west-1") != made


def test_botocore_reads_them(tmp_path, monkeypatch):
    from botocore.session import Session

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    made = keep_keys(tmp_path / "keys", "eu-west-1")
    session = Session()
    found = session.get_credentials()
    assert (found.access_key, found.secret_key) == (made.access_key_id, made.secret_access_key)
    assert session.get_config_variable("region") == "eu-west-1"


@pytest.mark.parametrize("text", ["", "[default]\naws_access_key_id = x\n", "secret=word\n", "[default\n"])
def test_keys_that_are_damaged_are_named_and_not_shown(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(DirectoryError, match="it is damaged; put a good copy back, or delete it") as error:
        keep_keys(tmp_path / "keys", "eu-west-1")
    assert "word" not in str(error.value)
