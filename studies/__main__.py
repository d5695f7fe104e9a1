"""``python -m studies``."""

import sys

from studies.cli.search import main

sys.exit(main())
