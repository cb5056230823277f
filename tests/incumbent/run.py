"""A client that we did not write takes the reference cluster for Aurora PostgreSQL.

``aws-advanced-python-wrapper`` resolves names by the system, so its process gets a hosts file of its own (a mount
namespace; needs Linux and root, or user namespaces). Usage: ``python tests/incumbent/run.py PYTHON [--json FILE]``,
PYTHON being an interpreter that has the wrapper.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from aurora_router_cluster import LocalCluster

DOMAIN = "c9akciq32.us-east-1.rds.amazonaws.com"
CLIENT = Path(__file__).with_name("client.py")


def hosts_file(cluster: LocalCluster) -> str:
    """The cluster's names, as a hosts file has them."""
    named = [(each.host, each.endpoint) for each in cluster.instances]
    named += [(cluster.address(target), cluster.endpoint(target)) for target in ("writer", "reader")]
    return "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for address, name in named)


def told(cluster: LocalCluster, python: str) -> list[dict[str, Any]]:
    """What the wrapper says of writer and reader endpoint."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    conninfos = [cluster.conninfo(target, aurora_dns=None) for target in ("writer", "reader")]
    with tempfile.NamedTemporaryFile("w", suffix=".hosts") as hosts:
        hosts.write(hosts_file(cluster))
        hosts.flush()
        inside = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        command = [*namespace, "sh", "-c", inside, "sh", hosts.name, python, str(CLIENT), *conninfos]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        sys.exit(f"the incumbent failed:\n{done.stdout}{done.stderr}")
    answer: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> int:
    """Compare what the wrapper saw with what the cluster is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with LocalCluster.start(readers=2, domain=DOMAIN) as cluster:
        writer, reader = told(cluster, args.python)
        topology = {each.name: each.role.upper() for each in cluster.instances}
    checks = {
        "takes it for Aurora PostgreSQL": writer["dialect"] == reader["dialect"] == "AuroraPgDialect",
        "reads the same topology": writer["hosts"] == reader["hosts"] == topology,
        "connects to the writer": (topology[writer["instance"]], writer["standby"]) == ("WRITER", False),
        "connects to a reader": (topology[reader["instance"]], reader["standby"]) == ("READER", True),
    }
    for name, ok in checks.items():
        sys.stdout.write(f"{'ok    ' if ok else 'FAILED'}  {name}\n")
    sys.stdout.write(f"it saw: {json.dumps([writer, reader])}\n")
    if args.json is not None:
        figures = {name: {"value": int(ok), "unit": "yes", "bound": 1, "ok": ok} for name, ok in checks.items()}
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
