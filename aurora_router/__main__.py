"""``python -m aurora_router`` is ``aurora-router``."""

import sys

from aurora_router.cli.main import main

sys.exit(main())
