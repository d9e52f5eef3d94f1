"""Documents are the same after Redis as before, and another version is refused."""

from dataclasses import replace

import msgspec
import pytest

from farm import wire
from farm.errors import UnknownVersion
from tests.messages import FILE, INPUTS, report_of, work_of


@pytest.mark.parametrize("kind", INPUTS)
def test_work_comes_back_as_it_went(kind: str) -> None:
    assert wire.decode_work(wire.encode_work(work_of(kind))) == work_of(kind)


@pytest.mark.parametrize("kind", INPUTS)
def test_a_report_comes_back_as_it_went(kind: str) -> None:
    report = report_of(kind)
    assert wire.decode_report(wire.encode_report(report)) == report


def test_trouble_comes_back_as_it_went() -> None:
    trouble = wire.TroubleReport(code="network", retryable=True, message="no route", artifacts=(FILE,))
    report = replace(report_of("fetch"), result=None, trouble=trouble)
    assert wire.decode_report(wire.encode_report(report)) == report


def test_another_version_is_trouble_that_another_host_may_not_have() -> None:
    document = msgspec.json.decode(wire.encode_work(work_of("fetch")))
    document["v"] = wire.VERSION + 1
    with pytest.raises(UnknownVersion) as caught:
        wire.decode_work(msgspec.json.encode(document))
    assert caught.value.retryable


@pytest.mark.parametrize("data", [b"", b"[]", b"wake", b'{"v":4}', b'{"v":4,"kind":"fetch"}', b'{"v":4,"kind":"cook"}'])
def test_a_malformed_report_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        wire.decode_report(data)


def test_an_input_of_another_step_is_refused() -> None:
    document = msgspec.json.decode(wire.encode_work(work_of("fetch")))
    document["kind"] = "build"
    with pytest.raises(ValueError):
        wire.decode_work(msgspec.json.encode(document))


def test_a_report_of_the_version_before_is_read() -> None:
    report = report_of("srpm")
    text = wire.encode_report(report)
    old = text.replace(b'"v":%d' % wire.VERSION, b'"v":%d' % (wire.VERSION - 1))
    assert old != text
    assert wire.decode_report(old) == report
