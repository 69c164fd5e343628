"""``python -m twograd`` is the command ``twograd``."""

import sys

from twograd.cli import main

sys.exit(main())
