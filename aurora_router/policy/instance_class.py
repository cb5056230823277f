"""The size of an instance by its class, as a share of connections: ``2xlarge`` takes twice what ``xlarge`` does."""

from __future__ import annotations

import re
from functools import lru_cache

_SIZES = {"micro": 1, "small": 1, "medium": 1, "large": 2, "xlarge": 4}
"""The end of a class -> its size; ``Nxlarge`` is N of the last one. Sizes grow as vCPUs do, from large on."""


@lru_cache(maxsize=256)
def size_of(instance_class: str | None) -> int | None:
    """The size of a class in halves of ``large``; None: it does not say one, as ``db.serverless``, or is not known."""
    end = (instance_class or "").rpartition(".")[2]
    many = re.fullmatch("([1-9][0-9]?)xlarge", end)
    return 4 * int(many[1]) if many else _SIZES.get(end)
