"""The last message of each subject: from any replica, or from the leader where that matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ...exceptions import UnexpectedReply
from ..protocol import wire
from ..protocol.runs import RunReader
from ..protocol.steps import Request, Steps
from ..protocol.wire import Ack, Message, Reply
from .requests import in_chunks, raise_error
from .stream import Stream

MAX_BATCH = 1024
"""Subjects in one batch get; the server refuses more."""
MAX_BATCH_BYTES = 256 * 1024
MAX_BATCH_REPLY_BYTES = 4 * 1024 * 1024
"""What the server sends for one batch. Its own bound is also how far it lets a slow client fall
behind before it closes the connection."""
MAX_FROM_LEADER = 128
"""Messages asked of the leader at once, for the same reason: it sends each on its own."""

UP_TO = "Nats-UpTo-Sequence"
"""The field at the end of a batch with the last sequence that the replica had at its beginning."""


class BatchReader(RunReader, Protocol):
    """Takes replies to a batch get."""

    @property
    def taken(self) -> Mapping[str, object]:
        """Return what it has taken, by subject."""

    def drop(self, subject: str) -> None:
        """Drop what it has taken for a subject."""


class Messages:
    """Reads the last messages of a stream's subjects.

    In a stream with replicas, any of them answers a direct get, and may not have this process's
    latest writes yet. Answers that are older than what this process has written are asked for
    again, of the leader.
    """

    def __init__(self, stream: Stream[Any], *, from_leader: bool = False) -> None:
        """With ``from_leader``, only the leader is asked."""
        self._stream = stream
        self._opening = stream.opening
        self.from_leader = from_leader
        self._name = stream.config.stream.encode()
        self._direct, self._leader = stream.api.direct_get, stream.api.get

    def last(self, subject: str, *, leader: bool = False) -> Steps[Message | None]:
        """Return the last message of a subject, tombstones and expired values included.

        None if it has no message. With ``leader``, only the leader is asked. One round trip.
        """
        if leader or self.from_leader:
            return (yield from self.last_from_leader(subject))
        reply = yield from self._stream.ask(self.request(subject))
        return (yield from self.read(subject, reply))

    def request(self, subject: str) -> Request:
        """Return a request for the last message of a subject, which any replica answers."""
        return Request(self._stream.lanes.reads, f"{self._direct}.{subject}")

    def read(self, subject: str, reply: Reply) -> Steps[Message | None]:
        """Return the message in the reply to request(), or the leader's if that is older."""
        message = wire.parse_direct(reply)
        if message is not None and message.subject != subject.encode():
            raise self.foreign(subject)
        if self.is_stale(subject, message):
            return (yield from self.last_from_leader(subject))
        return message

    def last_of(
        self, subjects: list[str], reader: BatchReader | None = None
    ) -> Steps[dict[str, Message | None]]:
        """Return the last messages of those subjects that have one, by subject.

        Those that the reader takes are not among them. One round trip up to MAX_BATCH subjects.
        """
        found: dict[str, Message | None] = {}
        if self.from_leader:
            yield from self.add_from_leader(subjects, found)
        else:
            recent = self._stream.recent
            written = recent.newest
            reached = yield from self._add_from_any(subjects, found, reader)
            # A replica that has reached this process's last write has all those before it.
            if recent.may_be_missing(reached, written):
                stale = self._stale(subjects, found, reader)
                yield from self.add_from_leader(stale, found)
        return found

    def _stale(
        self, subjects: list[str], found: Mapping[str, Message | None], reader: BatchReader | None
    ) -> list[str]:
        """Return the subjects whose answers may be older than this process's own writes.

        The reader has not kept the sequences of what it has taken, and drops what may be too old.
        """
        taken = {} if reader is None else reader.taken
        stale = []
        for subject in subjects:
            if subject in taken and reader is not None:
                if self._stream.recent.is_stale(subject.encode(), 0):
                    reader.drop(subject)
                    stale.append(subject)
            elif self.is_stale(subject, found.get(subject)):
                stale.append(subject)
        return stale

    def _add_from_any(
        self, subjects: list[str], found: dict[str, Message | None], reader: BatchReader | None
    ) -> Steps[int]:
        """Add the answers of replicas. Return the last sequence that each of these replicas had."""
        stream = self._stream
        reached: int | None = None
        asked = dict.fromkeys(subjects)
        while subjects:
            requests = []
            most = min(MAX_BATCH_BYTES, stream.server.max_payload // 4)
            for chunk in in_chunks(subjects, MAX_BATCH, most, len):
                requests.append(self.batch_request(chunk, reader))
            unfinished = False
            for replies in (yield from stream.pipeline(requests)):
                for reply in raise_error(replies):
                    message = wire.parse_direct(reply)
                    if message is not None:
                        subject = message.subject.decode(errors="replace")
                        if subject not in asked:
                            raise self.foreign(f"{len(asked)} subjects")
                        found[subject] = message
                # The last reply is the end of the batch.
                end = replies[-1].header
                unfinished = unfinished or wire.pending(end) > 0
                position = wire.count_field(end, UP_TO) or 0
                reached = position if reached is None else min(reached, position)
            # The server ends a batch early if it would not fit into the server's own buffers.
            left = []
            if unfinished:
                taken = {} if reader is None else reader.taken
                left = [each for each in subjects if each not in found and each not in taken]
            subjects = left if len(left) < len(subjects) else []
        return reached or 0

    def batch_request(self, subjects: list[str], reader: RunReader | None = None) -> Request:
        """Return a request for the last messages of subjects, or of subject filters."""
        document = {"multi_last": subjects, "max_bytes": MAX_BATCH_REPLY_BYTES}
        payload = wire.compact_json(document)
        return Request(
            self._stream.lanes.reads, self._direct, payload, gather=MAX_BATCH + 1, reader=reader
        )

    # From the leader -------------------------------------------------------------------------

    def last_from_leader(self, subject: str) -> Steps[Message | None]:
        """Return the last message of a subject as the leader has it; None if there is none."""
        reply = yield from self._stream.ask_leader(self.leader_request(subject))
        return self.from_leaders_reply(subject, reply)

    def add_from_leader(self, subjects: list[str], found: dict[str, Message | None]) -> Steps[None]:
        """Add the last messages of subjects, as the leader has them; None for those without one."""
        for start in range(0, len(subjects), MAX_FROM_LEADER):
            chunk = subjects[start : start + MAX_FROM_LEADER]
            questions = [self.leader_request(each) for each in chunk]
            replies = yield from self._stream.pipeline_to_leader(questions)
            for subject, reply in zip(chunk, replies, strict=True):
                found[subject] = self.from_leaders_reply(subject, raise_error(reply))

    def leader_request(self, subject: str) -> Request:
        """Return a question to the leader for the last message of a subject."""
        payload = wire.compact_json({"last_by_subj": subject})
        return Request(self._stream.lanes.questions, self._leader, payload)

    def sequence_request(self, sequence: int) -> Request:
        """Return a question to the leader for the message at a sequence."""
        payload = wire.compact_json({"seq": sequence})
        return Request(self._stream.lanes.writes, self._leader, payload)

    def from_leaders_reply(self, subject: str, reply: Reply) -> Message | None:
        """Return the message in the leader's reply; None if the subject has none."""
        message = wire.parse_leader(reply)
        if message is not None and message.subject != subject.encode():
            raise self.foreign(subject)
        # Other replicas may be behind what the leader has just said, too.
        if message is None:
            self._stream.recent.note_missing(subject.encode())
        elif self._opening.replicated:
            self._stream.recent.note(message.subject, message.sequence)
        return message

    # This process's own writes ---------------------------------------------------------------

    def acknowledged(self, reply: Reply) -> Ack:
        """Return this stream's acknowledgement of a publish. Raises as wire.parse_ack does."""
        return wire.parse_ack(reply, self._name)

    def remember(self, subject: bytes, sequence: int) -> None:
        """Note a write of this process that the stream has acknowledged at a sequence."""
        self._stream.recent.note(subject, sequence)

    def is_stale(self, subject: str, message: Message | None) -> bool:
        """Return True if a replica answered that does not have this process's own write yet."""
        if message is None:
            return self._stream.recent.is_stale(subject.encode(), None)
        # The message's subject need not be UTF-8, which that of the caller stands for.
        return self._stream.recent.is_stale(message.subject, message.sequence)

    def foreign(self, asked: str) -> UnexpectedReply:
        """Return the error for a message of a subject that was not asked for."""
        return UnexpectedReply(
            f"The {self._stream.config.title} was asked for {asked}, and the answer is of another "
            "subject"
        )
