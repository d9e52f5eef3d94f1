"""`python -m tests.siege`: lay siege to a farm of its own, print how it went, exit with 1 when a rule was broken."""

import argparse
import logging
import random
import sys
from collections.abc import Sequence

from tests.distribution import demo_distribution
from tests.siege.shape import DatabaseKind, Shape, long_siege
from tests.siege.siege import Report, lay
from tests.siege.words import shown
from tests.siege.world import WorldTrouble

_BOTH = "both"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 for a broken rule, 2 when there was no farm to lay siege to, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.siege", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of attack, in all (%(default)g)")
    parser.add_argument("--seed", type=int, default=None, help="of all that chance decides; random when not given")
    kinds = [*(kind.value for kind in DatabaseKind), _BOTH]
    parser.add_argument("--database", choices=kinds, default="sqlite", help="both halves the time (%(default)s)")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    kinds_wanted = list(DatabaseKind) if options.database == _BOTH else [DatabaseKind(options.database)]
    logging.getLogger("farm").addHandler(logging.NullHandler())  # the timeline has the client's warnings
    code = 0
    try:
        distribution = demo_distribution()
        for kind in kinds_wanted:
            shape = long_siege(seed, kind, options.minutes / len(kinds_wanted))
            report = _lay(shape, distribution)
            code = max(code, 1 if report.broken else 0)
    except (WorldTrouble, RuntimeError) as error:
        print(f"siege: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("siege: interrupted; nothing of it is left", file=sys.stderr)
        return 130
    return code


def _lay(shape: Shape, distribution: object) -> Report:
    print(f"siege of {shape.attack_s / 60:g} minutes on {shape.database}, SEED={shape.seed}", flush=True)
    report = lay(shape, distribution, lambda text: print(text, flush=True))  # type: ignore[arg-type]
    print(shown(report), flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
