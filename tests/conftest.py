"""What all tests rely on."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a run in the background is started so, and hands it on
    signal.signal(signal.SIGINT, signal.default_int_handler)
