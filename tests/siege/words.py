"""How a siege went, in words for people: a table, and for each broken rule the story of the build that it is about."""

from collections.abc import Iterator

from tests.siege.siege import Report

_STORIES = 5  # of broken rules whose timeline is shown whole
_LINES = 160


def shown(report: Report) -> str:
    return "\n".join((*_table(report), *_stories(report)))


def _table(report: Report) -> Iterator[str]:
    shape = report.shape
    yield ""
    times = f"{report.took_s:.0f} s, of which {report.quiet_s:.0f} s quiet at the end"
    yield f"siege with SEED={shape.seed} on {shape.database}: {times}"
    yield f"  builds     {sum(report.outcomes.values())}: {_counted(report.outcomes)}"
    yield f"  wounds     {sum(report.wounds.values())}: {_counted(report.wounds)}"
    accounts = "with the accounts of the roles" if report.has_accounts else "without accounts"
    yield f"  attacks    {sum(report.attacks.values())} hostile packages: {_counted(report.attacks)}"
    yield f"  evil host  {sum(report.deeds.values())} deeds, {accounts}: {_counted(report.deeds)}"
    yield f"  attempts   {report.attempts}, of which {report.lost} met trouble; {report.retried} builds were retried"
    yield f"  refused    {report.refused} enqueues, asked again"
    waits = ", ".join(f"{rule} {seconds:.1f} s" for rule, seconds in sorted(report.longest_s.items()))
    yield f"  longest    {waits}"
    yield f"  broken     {len(report.broken)} rules" if report.broken else "  all rules hold"


def _counted(counts: "dict[str, int]") -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda pair: -pair[1]))


def _stories(report: Report) -> Iterator[str]:
    if not report.broken:
        return
    yield ""
    for broken in report.broken:
        yield f"BROKEN {broken.rule}: {broken.text}"
    told: set[int | None] = set()
    for broken in report.broken:
        if broken.build in told or len(told) >= _STORIES:
            continue
        told.add(broken.build)
        yield ""
        yield f"--- {broken.rule}: {broken.text}"
        yield from report.timeline.about(broken.build)[-_LINES:]
    yield ""
    yield f"SEED={report.shape.seed}; logs, timeline and data are in {report.folder}"
