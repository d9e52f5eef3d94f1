"""Labels of attempts: written and read in one place, and refused when they are no label."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.model.arch import Arch
from farm.model.label import AttemptLabel

KINDS = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
STEPS = st.tuples(KINDS, st.none() | st.sampled_from(Arch))
NUMBERS = st.integers(min_value=0, max_value=10**18 - 1)


@given(job_id=NUMBERS, step=STEPS, number=NUMBERS)
def test_a_label_reads_as_it_was_written(job_id: int, step: tuple[str, Arch | None], number: int) -> None:
    label = AttemptLabel(job_id=job_id, kind=step[0], arch=step[1], number=number)
    assert AttemptLabel.parse(str(label)) == label
    assert str(label) == f"{label.step}.{number}" == f"{job_id}.{label.attempt_name}"


def test_a_label_says_its_parts() -> None:
    label = AttemptLabel.of_row(12, "build", "x86_64", 3)
    assert (str(label), label.step, label.step_name) == ("12.build.x86_64.3", "12.build.x86_64", "build.x86_64")
    assert AttemptLabel.of_row(12, "fetch", "", 1).attempt_name == "fetch.1"


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "12", "12.fetch", "12.Cook.1", "12.build.vax.1", "12.build.x86_64.1.1", "x.fetch.1", "12..fetch.1"),
        *("12.build..1", "012.fetch.1", "12.fetch.01", "12.fetch.x.1", "-1.fetch.1", "+1.fetch.1", "1_2.fetch.1"),
        *("12.fetch.\u0661", "12.fetch.1\n", " 12.fetch.1", "9" * 19 + ".fetch.1", "12.fetch." + "9" * 5000, "\ud800"),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no attempt's label") as refused:
        AttemptLabel.parse(text)
    assert AttemptLabel.parse_or_none(text) is None
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()
