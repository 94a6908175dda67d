"""Steps that may take until a moment, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_nats.client import drivers
from django_nats.client.protocol.steps import Call, Pause, Steps, within
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import NotSent, OutcomeUnknown
from django_nats.realtime import monotonic
from tests.client.test_drivers import Answering, Drive, _async, _sync, ask

SOON = 0.05
"""Seconds until a deadline that is to pass."""
LATE = 3600.0


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Drive:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def session() -> Answering:
    return Answering()


def asking(*subjects: str) -> Steps[list[bytes]]:
    replies: list[Reply] = yield [ask(each, b"one") for each in subjects]
    return [each.payload for each in replies]


def test_what_is_answered_in_time_is_returned(drive: Drive, session: Answering) -> None:
    assert drive(session, within(monotonic() + LATE, asking("a", "b"))) == [b"ONE", b"ONE"]
    assert session.abandoned == []


def test_a_request_without_an_answer_is_given_up_at_the_deadline(
    drive: Drive, session: Answering
) -> None:
    with pytest.raises(OutcomeUnknown, match="did not answer in the call's time"):
        drive(session, within(monotonic() + SOON, asking("a", "never")))
    assert session.abandoned == session.unanswered


def test_nothing_is_sent_after_the_deadline(drive: Drive, session: Answering) -> None:
    with pytest.raises(OutcomeUnknown):
        drive(session, within(monotonic() - 1, asking("a")))
    assert session.writes == []


def test_a_pause_ends_at_the_deadline(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[None]:
        yield Pause(LATE)
        yield from asking("a")

    with pytest.raises(OutcomeUnknown):
        drive(session, within(monotonic() + SOON, steps()))
    assert session.writes == []


def test_the_steps_are_closed_at_the_deadline_and_handle_no_failure(
    drive: Drive, session: Answering
) -> None:
    ended = []

    def steps() -> Steps[None]:
        try:
            yield from asking("never")
        except Exception:
            ended.append("failed")
        finally:
            ended.append("closed")

    with pytest.raises(OutcomeUnknown):
        drive(session, within(monotonic() + SOON, steps()))
    assert ended == ["closed"]


def test_other_failures_reach_the_steps(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[str]:
        try:
            yield ask("refused")
        except NotSent:
            return "handled"
        return "answered"

    assert drive(session, within(monotonic() + LATE, steps())) == "handled"


def test_a_function_of_the_user_is_called_with_its_arguments(
    drive: Drive, session: Answering
) -> None:
    def steps() -> Steps[Any]:
        return (yield Call(max, (1, 2)))

    assert drive(session, within(monotonic() + LATE, steps())) == 2


def test_a_cancelled_task_closes_the_steps(session: Answering) -> None:
    ended = []

    def steps() -> Steps[None]:
        try:
            yield from asking("never")
        finally:
            ended.append("closed")

    async def cancel() -> None:
        task = asyncio.ensure_future(drivers.arun(session, within(monotonic() + LATE, steps())))
        await asyncio.sleep(0)  # the task runs up to its request
        assert session.unanswered
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert ended == ["closed"]
    assert session.abandoned == session.unanswered
