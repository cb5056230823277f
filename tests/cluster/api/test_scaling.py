"""What the RDS API shows of auto-scaling and of serverless capacity."""

from __future__ import annotations

import os

import pytest

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.control.autoscaling import PREFIX

pytestmark = pytest.mark.cluster


def test_an_auto_scaled_reader_is_described_as_on_aws(connect_api, eventually):
    options = {"auto_scale": "2..3", "target_cpu": 90, "scale_period": 0.1, "serverless": "0.5..8", "api": True}
    with LocalCluster.start(f"scaled{os.getpid()}", readers=1, **options) as cluster:
        rds = connect_api(cluster.api, cluster.region)
        (found,) = rds.describe_db_clusters(DBClusterIdentifier=cluster.name)["DBClusters"]
        assert found["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 8.0}

        def find_added():
            wanted = [{"Name": "db-cluster-id", "Values": [cluster.name]}]
            found = rds.describe_db_instances(Filters=wanted)["DBInstances"]
            assert {one["DBInstanceClass"] for one in found} == {"db.serverless"}
            return {one["DBInstanceIdentifier"]: one for one in found if one["TagList"]}

        eventually(lambda: [one["DBInstanceStatus"] for one in find_added().values()] == ["available"])
        ((name, added),) = find_added().items()
        assert name.startswith(f"{PREFIX}-")
        assert added["TagList"] == [{"Key": "application-autoscaling:resourceId", "Value": f"cluster:{cluster.name}"}]
        assert added["PromotionTier"] == 15
        events = rds.describe_events(SourceType="db-instance", SourceIdentifier=name)["Events"]
        assert {each["Message"]: each["EventCategories"] for each in events} == {"DB instance created": ["creation"]}
