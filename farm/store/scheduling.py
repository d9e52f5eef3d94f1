"""The scheduler's half of the store: what it reads, sends, settles and records. One scheduler at a time.

The clients' half is clients.py. Every value that is returned here was committed.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from farm import wire
from farm.model.label import AttemptLabel
from farm.model.outcome import Outcome, Status
from farm.model.source import has_mask
from farm.model.worker import Holder
from farm.state import machine
from farm.state.changes import BuildState, Changes, build_for
from farm.state.policy import PUT_OFF_AT_MOST
from farm.state.text import clean
from farm.steps.base import Order
from farm.steps.orders import make_order
from farm.steps.registry import step_type
from farm.store import schema, settling, state_rows
from farm.store.database import Database, write_alone
from farm.store.heads import Head, doubt_heads
from farm.store.in_flight import keep_apart, release
from farm.store.logs import logs_for
from farm.store.owners import claim, owners_for, owners_for_uploads, upload_refusal
from farm.store.published import (
    note_published,
    occupants_for,
    occupants_for_uploads,
    replaced_by_offers,
    upload_replacement_refusal,
)
from farm.store.read_view import ReadView, Ready
from farm.store.settling import SettlePolicy, Verdict
from farm.store.waiting import QueueSeen

_STEP = schema.step.c


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A ready step that is sent now, with the limit of its wall-clock time, and that of the step after it in its
    chain."""

    ready: Ready
    wall_s: int
    following_wall_s: int


@dataclass(frozen=True, kw_only=True)
class Held:
    """The holder of an attempt, and the label of the next attempt in its chain."""

    holder: Holder
    following: str | None


@dataclass(frozen=True, kw_only=True)
class Committed:
    """The part of a transaction that Redis does not know yet: offers of successors, leases to close, events.

    `used_s` are the slot-seconds that ended attempts had used, by owner. `heads` are the heads of repositories that
    changed, by path; None for a head that is no longer known. `heard` are the reports that counted.
    """

    orders: tuple[Order, ...] = ()
    closes: tuple[str, ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    late: tuple[str, ...] = ()
    heard: tuple[settling.Heard, ...] = ()
    used_s: Mapping[str, float]
    heads: Mapping[str, Head | None] = field(default_factory=dict)


_DUE = (
    sa.select(_STEP.job_id)
    .where(
        sa.text(schema.IS_DUE_LATER),
        # No step is put off beyond `latest`: a clock that was wrong wrote a later time.
        sa.or_(_STEP.not_before_at <= sa.bindparam("now"), _STEP.not_before_at > sa.bindparam("latest")),
    )
    .limit(sa.bindparam("most"))
)


class SchedulerStore(Database):
    """The half of the store that the scheduler calls; clients only read."""

    # --- reading ------------------------------------------------------------------------------------------------

    @contextmanager
    def read_view(self) -> Iterator[ReadView]:
        """A view that answers several queries as of one moment."""
        with self.reading() as connection:
            yield ReadView(connection)

    def loads(self) -> dict[str, tuple[float, datetime]]:
        """Each owner's slot-seconds, and the time to which they are decayed."""
        with self.reading() as connection:
            return {row.owner: (row.load_s, row.at) for row in connection.execute(sa.select(schema.owner_load))}

    def held(self, labels: Sequence[str]) -> dict[str, Held]:
        """By label, the attempts among these that were seen running and are live still."""
        with self.reading() as connection:
            builds = state_rows.load(connection, _builds_of(labels)) if labels else {}
        found = {}
        for label in labels:
            build = build_for(builds, label)
            step = build.by_label(label) if build is not None else None
            if build is not None and step is not None and step.live is not None and step.live.holder:
                following = build.next_in_chain(step)
                found[label] = Held(
                    holder=Holder(digest=step.live.holder, worker=step.live.worker or ""),
                    following=following.label if following is not None and following.live is not None else None,
                )
        return found

    def closing(self) -> tuple[str, ...]:
        """Labels of cancelled attempts whose leases may not be closed yet."""
        with self.reading() as connection:
            return tuple(connection.scalars(sa.select(schema.closing.c.label).limit(1000)))

    # --- changing -----------------------------------------------------------------------------------------------

    def promote_due(self, now: datetime, *, most: int) -> Committed:
        """Make steps ready that waited for a time that has come."""
        latest = now + PUT_OFF_AT_MOST
        with self.reading() as connection:
            ids = set(connection.scalars(_DUE, {"now": now, "latest": latest, "most": most}))

        def change(changes: Changes) -> None:
            for step in (step for build in changes.builds.values() for step in build.steps):
                at = step.not_before_at
                if step.status is Status.WAITING and at is not None and not now < at <= latest:
                    changes.put(step, status=Status.READY)

        return self._change(ids, now, change) if ids else Committed(used_s={})

    def dispatch(self, picks: Sequence[Pick], now: datetime, *, with_logs: bool = False) -> Committed:
        """Make attempts for these steps and for the step after each in its chain.

        Leaves out steps that are no longer ready. `orders` are for the first attempt of each chain; with `with_logs`
        the orders of steps that publish logs name the logs and records that exist.
        """
        wanted = {pick.ready.step_id: pick for pick in picks}

        def change(changes: Changes) -> None:
            for build in changes.builds.values():
                for step in build.steps:
                    pick = wanted.get(step.id or 0)
                    if pick is not None and step.status is Status.READY:
                        taken = upload_refusal(changes.owners, build, step)
                        taken = taken or upload_replacement_refusal(changes.occupants, build, step)
                        if taken is not None:
                            machine.ended(changes, build, step, Outcome.FAILED, clean(taken))
                            continue
                        machine.send(changes, build, step, wall_s=pick.wall_s, following_wall_s=pick.following_wall_s)
                        changes.offers.append((build, step))

        return self._change({pick.ready.build_id for pick in picks}, now, change, is_chain=True, with_logs=with_logs)

    def settle(
        self, reports: Sequence[wire.AnyReport], now: datetime, policy: SettlePolicy, leases: Mapping[str, Holder]
    ) -> Committed:
        """Apply reports in one transaction. A report that is late, repeated or not from the attempt's holder changes
        nothing. `leases` are the holders in Redis, for attempts that were not seen running before they ended."""
        settled = settling.Settled()

        def change(changes: Changes) -> None:
            found = settling.settle(changes, reports, policy, leases)
            settled.heard, settled.late = found.heard, found.late

        ids = _builds_of(report.attempt for report in reports)
        done = self._change(ids, now, change, with_logs=policy.uploads_logs, reports=reports)
        return replace(done, heard=tuple(settled.heard), late=tuple(settled.late))

    def judge(self, verdicts: Sequence[Verdict], now: datetime, policy: SettlePolicy) -> Committed:
        """Apply verdicts on live attempts, in one transaction."""
        ids = _builds_of(verdict.label for verdict in verdicts)
        return self._change(ids, now, lambda changes: settling.judge(changes, verdicts, policy))

    def refuse(self, picks: Mapping[int, str], now: datetime, build_ids: Collection[int]) -> Committed:
        """End ready steps (step id to message) that cannot be sent at all, as the farm's fault."""

        def change(changes: Changes) -> None:
            for build in changes.builds.values():
                for step in build.steps:
                    if step.id is not None and step.id in picks and step.status is Status.READY:
                        machine.ended(changes, build, step, Outcome.ERRORED, clean(picks[step.id]))

        return self._change(build_ids, now, change)

    def closed(self, labels: Sequence[str]) -> None:
        """Record that these leases are closed."""
        with self.writing() as connection:
            connection.execute(schema.closing.delete().where(schema.closing.c.label.in_(labels)))

    def note_queues(self, seen: Mapping[str, QueueSeen]) -> None:
        """Record the state of the queues, for people who ask why a step waits."""
        with self.writing() as connection:
            write_alone(connection, schema.queue)
            connection.execute(schema.queue.delete())
            values = [
                {"name": name, "slots": one.slots, "busy": one.busy, "note": clean(one.note)}
                for name, one in seen.items()
            ]
            if values:
                connection.execute(schema.queue.insert(), values)

    def note_loads(self, loads: Mapping[str, float], at: datetime) -> None:
        with self.writing() as connection:
            write_alone(connection, schema.owner_load)
            connection.execute(schema.owner_load.delete())
            values = [{"owner": owner, "load_s": load_s, "at": at} for owner, load_s in loads.items()]
            if values:
                connection.execute(schema.owner_load.insert(), values)

    def _change(
        self,
        ids: Collection[int],
        now: datetime,
        change: Callable[[Changes], None],
        *,
        is_chain: bool = False,
        with_logs: bool = False,
        reports: Sequence[wire.AnyReport] = (),
    ) -> Committed:
        if not ids:
            change(Changes(now=now, builds={}))
            return Committed(used_s={})
        with self.writing() as connection:
            changes = Changes(now=now, builds=state_rows.load(connection, ids))
            changes.owners = owners_for(connection, changes.builds, reports)
            changes.occupants = occupants_for(connection, changes.builds, reports)
            if is_chain:
                changes.owners |= owners_for_uploads(connection, changes.builds)
                changes.occupants |= occupants_for_uploads(connection, changes.builds)
            change(changes)
            keep_apart(connection, changes)
            state_rows.flush(connection, changes)
            claim(connection, changes.claims, now)
            release(connection, changes)
            note_published(connection, changes.brought, now)
            heads = doubt_heads(connection, changes.published)
            changes.offers = [(build, step) for build, step in changes.offers if step.live is not None]
            secret = _secrets(connection, changes)
            publishing = [offer for offer in changes.offers if with_logs and step_type(offer[1].kind).publishes_logs]
            logs = logs_for(connection, publishing)
            replaces = replaced_by_offers(connection, changes.offers)
            orders = [
                make_order(build, step, secret, logs, replaces, is_alone=not is_chain) for build, step in changes.offers
            ]
        return Committed(
            orders=tuple(orders),
            closes=tuple(changes.closes),
            events=tuple(changes.events()),
            used_s=changes.used_s,
            heads=heads,
        )


def _builds_of(labels: Iterable[str]) -> set[int]:
    return {found.job_id for label in labels if (found := AttemptLabel.parse_or_none(label)) is not None}


def _secrets(connection: sa.Connection, changes: Changes) -> dict[int, str]:
    """URLs with their credentials, for the offered steps that take them."""
    ids = [build.id for build, step in changes.offers if step_type(step.kind).takes_secrets and _has_secret(build)]
    if not ids:
        return {}
    column = schema.source_secret.c
    found = connection.execute(sa.select(column.build_id, column.url).where(column.build_id.in_(ids)))
    return {build_id: url for build_id, url in found}  # noqa: C416 - a row is a pair only at run time


def _has_secret(build: BuildState) -> bool:
    return has_mask(build.source.url or "")
