from tests.cluster.wire.conftest import home

__all__ = ["home"]
