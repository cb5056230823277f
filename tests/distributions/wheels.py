"""Check the wheels that `nox -s build` has built: what the driver's brings, and that the cluster's requires it.

``python tests/distributions/wheels.py DRIVER CLUSTER`` with the two files; prints their sizes.
"""

from __future__ import annotations

import sys
from email import message_from_bytes
from zipfile import ZipFile

LIMIT = 1_700_000
"""Bytes, unpacked: a driver is in every container of a service."""
DRIVER = {
    "aurora_router",
    "aurora_router_sqlalchemy",
    "aurora_router_django",
    "aurora_router_aws",
    "aurora_router_mysql",
    "aurora_router_patroni",
}
CLUSTER = {"aurora_router_cluster", "aurora_router_pytest"}


def main(driver: str, cluster: str) -> None:
    """Look into both."""
    with ZipFile(driver) as one, ZipFile(cluster) as other:
        for wheel, packages in ((one, DRIVER), (other, CLUSTER)):
            folders = {name.partition("/")[0] for name in wheel.namelist()}
            assert {name for name in folders if not name.endswith(".dist-info")} == packages, folders
            assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
            packed, unpacked = (
                sum(getattr(each, size) for each in wheel.infolist()) for size in ("compress_size", "file_size")
            )
            print(f"{wheel.filename}: {packed / 1e6:.2f} MB, installed {unpacked / 1e6:.2f} MB")
            assert wheel is other or unpacked <= LIMIT, f"the driver's wheel has more than {LIMIT} bytes"
        versions = [_metadata(wheel)["Version"] for wheel in (one, other)]
        assert versions[0] == versions[1], versions
        required = _metadata(other).get_all("Requires-Dist", [])
        assert f"aurora-router=={versions[0]}" in required, required


def _metadata(wheel: ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
