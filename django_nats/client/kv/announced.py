"""Which changes the feed has announced that the stream's leader may not have stored yet.

One of several replicas sends the feed. It may store a change a moment before the leader does, which
then answers a read with the previous value, although the change was announced before the read
began. So the announcements are remembered until the leader is known to have stored them.
"""

from __future__ import annotations


class Announced:
    """The latest revision of each subject among these changes."""

    def __init__(self, most: int) -> None:
        """Remember at most ``most`` subjects one by one."""
        self._most = most
        self.begin(0)

    def begin(self, position: int) -> None:
        """Begin with a feed that starts after a position of the stream, its sequence number."""
        self._revisions: dict[str, int] = {}
        """The lowest revision comes first, as the feed reports in the order of the stream."""
        self._floor = position
        """A revision up to which any subject may have changed; 0 if there is none."""

    def add(self, subject: str, revision: int) -> None:
        """Note that a change of a subject was announced."""
        self._revisions.pop(subject, None)
        self._revisions[subject] = revision
        if len(self._revisions) > self._most:
            self.begin(revision)

    def settle(self, position: int) -> None:
        """Note that the leader has stored all changes up to a position of the stream."""
        if self._floor <= position:
            self._floor = 0
        while self._revisions:
            subject = next(iter(self._revisions))
            if self._revisions[subject] > position:
                break
            del self._revisions[subject]

    def newest(self, subject: str) -> int:
        """Return the revision that the value of a subject has at least, or 0 if none is known."""
        return max(self._floor, self._revisions.get(subject, 0))
