from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.storage.disk.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "crc"),  # RFC 3720, appendix B.4
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_known_checksums(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


@given(st.binary(max_size=200), st.integers(0, 200))
def test_it_can_go_on_from_a_prefix(data: bytes, cut: int) -> None:
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)
