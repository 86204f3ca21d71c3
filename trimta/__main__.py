"""`python -m trimta` is `trimta`."""

import sys

from trimta.cli.main import main

sys.exit(main())
