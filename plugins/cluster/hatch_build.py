"""The requirement on the driver: the same version, which is read from one file for both distributions."""

from __future__ import annotations

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Requires `aurora-router` of the version that this distribution has."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies; not called for an sdist, whose metadata are complete."""
        metadata["dependencies"] = [f"aurora-router=={metadata['version']}"]
