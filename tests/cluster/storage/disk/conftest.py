from tests.cluster.storage.wire.conftest import home

__all__ = ["home"]
