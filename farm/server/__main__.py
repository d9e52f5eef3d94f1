"""`python -m farm.server HOST PORT`: the server as a process of its own, as `farm up` starts it."""

import sys

from farm import process_log
from farm.config import Settings
from farm.errors import FarmError
from farm.server.run import listen, serve


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    try:
        settings = Settings.from_env()
        process_log.set_up(settings.log_level)
        serve(settings, listen(sys.argv[1], int(sys.argv[2])), say=lambda _: None)
    except FarmError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


sys.exit(main())
