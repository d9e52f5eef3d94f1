"""`python -m farm.scheduler`."""

import sys

from farm.scheduler.main import main

sys.exit(main())
