"""The last message of each subject: from any replica, or from the leader where that matters."""

from __future__ import annotations

from . import wire
from .exchange import Exchange, in_chunks, raise_error
from .opening import C, Server
from .recent import Recent
from .steps import Request, Steps
from .wire import Message, Reply

MAX_BATCH = 1024
"""Subjects in one batch get; the server refuses more."""
MAX_BATCH_BYTES = 256 * 1024
MAX_BATCH_REPLY = 4 * 1024 * 1024
"""Bytes the server sends for one batch; its own bound is all that it lets a slow client fall
behind before it drops the connection."""
MAX_FROM_LEADER = 128
"""Messages asked of the leader at once, for the same reason: it sends each on its own."""


class Messages(Exchange[C]):
    """What reads its stream, and knows what this process has written there."""

    def __init__(self, config: C, server: Server, recent: Recent) -> None:
        super().__init__(config, server, recent)
        self._direct = f"$JS.API.DIRECT.GET.{config.stream}"
        self._leader = f"$JS.API.STREAM.MSG.GET.{config.stream}"

    def _last_of(self, subjects: list[str]) -> Steps[dict[str, Message | None]]:
        """The last messages of those subjects that have one. One round trip up to MAX_BATCH."""
        found: dict[str, Message | None] = {}
        if self._from_leader:
            yield from self._batch_from_leader(subjects, found)
        else:
            yield from self._batch(subjects, found)
            if self.replicated:
                stale = [each for each in subjects if self._is_stale(each, found.get(each))]
                yield from self._batch_from_leader(stale, found)
        return found

    def _batch(self, subjects: list[str], found: dict[str, Message | None]) -> Steps[None]:
        while subjects:
            requests = []
            most = min(MAX_BATCH_BYTES, self._server.max_payload // 4)
            for chunk in in_chunks(subjects, MAX_BATCH, most, len):
                payload = wire.compact_json({"multi_last": chunk, "max_bytes": MAX_BATCH_REPLY})
                requests.append(Request(self.reads, self._direct, payload, gather=MAX_BATCH + 1))
            unfinished = False
            for replies in (yield from self.pipeline(requests)):
                for reply in raise_error(replies):
                    message = wire.parse_direct(reply)
                    if message is not None:
                        found[message.subject.decode()] = message
                # The last of them is the end of the batch.
                unfinished = unfinished or wire.pending(replies[-1].header) > 0
            # The server ends a batch early that would not fit into its own buffers.
            left = [each for each in subjects if each not in found] if unfinished else []
            subjects = left if len(left) < len(subjects) else []

    def _last(self, subject: str, *, leader: bool = False) -> Steps[Message | None]:
        """The last message of a subject, tombstones and expired values included."""
        if leader or self._from_leader:
            return (yield from self._ask_leader(subject))
        reply = yield from self.ask(Request(self.reads, f"{self._direct}.{subject}"))
        message = wire.parse_direct(reply)
        if self._is_stale(subject, message):
            return (yield from self._ask_leader(subject))
        return message

    def _leader_request(self, subject: str) -> Request:
        return Request(self.writes, self._leader, wire.compact_json({"last_by_subj": subject}))

    def _ask_leader(self, subject: str) -> Steps[Message | None]:
        reply = yield from self.ask(self._leader_request(subject))
        return self._told_by_leader(subject, reply)

    def _batch_from_leader(
        self, subjects: list[str], found: dict[str, Message | None]
    ) -> Steps[None]:
        for start in range(0, len(subjects), MAX_FROM_LEADER):
            chunk = subjects[start : start + MAX_FROM_LEADER]
            replies = yield from self.pipeline([self._leader_request(each) for each in chunk])
            for subject, reply in zip(chunk, replies, strict=True):
                found[subject] = self._told_by_leader(subject, raise_error(reply))

    def _told_by_leader(self, subject: str, reply: Reply) -> Message | None:
        message = wire.parse_leader(reply)
        if self.replicated:
            # The replicas may lag behind what the leader tells, too.
            if message is None:
                self.recent.note_missing(subject)
            else:
                self.recent.note(subject, message.sequence)
        return message

    def _is_stale(self, subject: str, message: Message | None) -> bool:
        """Whether a replica answered that has not seen this process's own write yet."""
        return self.recent.is_stale(subject, None if message is None else message.sequence)

    def _remember(self, subject: bytes, sequence: int) -> None:
        """Note what this process has written, as the stream acknowledged it."""
        if self.replicated:
            self.recent.note(subject.decode(), sequence)

    @property
    def _from_leader(self) -> bool:
        """Whether only the leader may answer."""
        return False
