"""Conditions that are never true of a farm, whatever has happened to it, as queries of its database."""

import sqlalchemy as sa

from farm.store.database import make_engine

#: Sentences that are never true of a farm, and the query that finds what breaks each.
NEVER = {
    "a build is over while a step of it is not": """
        SELECT b.id FROM build b JOIN step s ON s.job_id = b.id
        WHERE b.status = 'finished' AND s.status <> 'finished'""",
    "a build goes on although all of its steps are over": """
        SELECT b.id FROM build b WHERE b.status <> 'finished'
        AND NOT EXISTS (SELECT 1 FROM step s WHERE s.job_id = b.id AND s.status <> 'finished')""",
    "a build is over without an outcome, or has one and is not over": """
        SELECT id FROM build WHERE (status = 'finished') <> (outcome IS NOT NULL)
        OR (status = 'finished') <> (finished_at IS NOT NULL)""",
    "a step is over without an outcome, or has one and is not over": """
        SELECT id FROM step WHERE (status = 'finished') <> (outcome IS NOT NULL)""",
    "a step has more than one live attempt": """
        SELECT step_id FROM attempt WHERE status <> 'finished' GROUP BY step_id HAVING COUNT(*) > 1""",
    "a step succeeded twice": """
        SELECT step_id FROM attempt WHERE outcome = 'succeeded' GROUP BY step_id HAVING COUNT(*) > 1""",
    "a step is out without a live attempt": """
        SELECT s.id FROM step s WHERE s.status IN ('dispatched', 'running')
        AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.step_id = s.id AND a.status <> 'finished')""",
    "a step that is not out has a live attempt": """
        SELECT s.id FROM step s JOIN attempt a ON a.step_id = s.id AND a.status <> 'finished'
        WHERE s.status NOT IN ('dispatched', 'running')""",
    "an attempt is over without an outcome, or has one and is not over": """
        SELECT id FROM attempt WHERE (status = 'finished') <> (outcome IS NOT NULL)""",
    "a step succeeded without output, or has one without": """
        SELECT id FROM step WHERE COALESCE(outcome = 'succeeded', FALSE) <> (output IS NOT NULL)""",
    "a step goes on although the one before it did not succeed": """
        SELECT u.id FROM step u JOIN step b ON b.job_id = u.job_id AND b.arch = u.arch AND b.kind = 'build'
        WHERE u.kind = 'upload' AND u.status IN ('ready', 'running') AND b.output IS NULL""",
    "an attempt was cancelled without its lease being noted for closing": """
        SELECT a.id FROM attempt a JOIN step s ON a.step_id = s.id WHERE a.outcome = 'cancelled' AND NOT EXISTS (
          SELECT 1 FROM closing c WHERE c.label = CAST(s.job_id AS TEXT) || '.' || s.kind
            || (CASE WHEN s.arch = '' THEN '' ELSE '.' || s.arch END) || '.' || CAST(a.number AS TEXT))""",
}


def broken(url: str) -> dict[str, list[int]]:
    """Each sentence that is true of this database, with the ids of the rows that make it so."""
    engine = make_engine(url)
    with engine.connect() as connection:
        found = {words: list(connection.execute(sa.text(query)).scalars()) for words, query in NEVER.items()}
    engine.dispose()
    return {words: ids for words, ids in found.items() if ids}
