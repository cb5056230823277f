"""The options of ``aurora-router cluster up`` that concern the storage nodes."""

from __future__ import annotations

import argparse


def configure_up(parser: argparse.ArgumentParser) -> None:
    """Add the options with which the storage of a new cluster is started."""
    add = parser.add_argument
    add("--isolated", action="store_const", const=True, help="give each of the six storage nodes a process of its own")
    add("--segment-size", type=segment_size, metavar="SIZE",
        help="stripe the volume over protection groups of this size, e.g. 64MiB (default: one group)")  # fmt: skip
    add(
        "--base-interval",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="between two bases in the storage, below which log is forgotten; 0: none by time (default: %(default)s)",
    )
    add(
        "--base-bytes",
        type=segment_size,
        default=128 << 20,
        metavar="SIZE",
        help="of log after which a base is taken at once; 0: none by size (default: 128MiB)",
    )
    add("--scrub-interval", type=float, default=3600.0, metavar="SECONDS",
        help="between two scrubs of the storage nodes' disks; 0: none (default: %(default)s)")  # fmt: skip


def segment_size(text: str) -> int:
    """A size like ``64MiB``, ``10GiB`` or plain bytes.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    number, factor = text.strip(), 1
    for suffix, bytes_ in (("KIB", 1 << 10), ("MIB", 1 << 20), ("GIB", 1 << 30)):
        if number.upper().endswith(suffix):
            number, factor = number[: -len(suffix)], bytes_
    try:
        return int(number) * factor
    except ValueError:
        message = f"{text!r} is no size; want a number of bytes, or one with KiB, MiB or GiB, e.g. 64MiB"
        raise argparse.ArgumentTypeError(message) from None
