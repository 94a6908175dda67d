"""Operations whose requests a test sends one by one to a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django_nats.client import drivers
from django_nats.client.protocol.steps import Pause, Steps
from django_nats.client.transport.session import Session
from django_nats.exceptions import NatsError, OutcomeUnknown


class Driven:
    """An operation that stops before each of its requests.

    Pauses are over at once. When ``ended`` is True, the operation has returned ``result``.
    """

    def __init__(self, session: Session, steps: Steps[Any]) -> None:
        self._session = session
        self._steps = steps
        self.ended = False
        self.result: Any = None
        self.requests = 0
        """The number of requests, or of lists of requests, that were sent."""
        self._advance(steps.send, None)

    def go_on(self) -> None:
        """Send the next request, and pass the answer on."""
        try:
            answer = self.send()
        except NatsError as error:
            self._advance(self._steps.throw, error)
        else:
            self._advance(self._steps.send, answer)

    def send(self) -> Any:
        """Send the next request, and return the answer. The operation does not go on."""

        def steps() -> Steps[Any]:
            return (yield self._effect)

        self.requests += 1
        return drivers.run(self._session, steps())

    def lose_answer(self) -> None:
        """Send the next request, and let its answer get lost."""
        self.send()
        self._advance(self._steps.throw, OutcomeUnknown())

    def end(self) -> Any:
        """Send all requests that are left. Return the result."""
        while not self.ended:
            self.go_on()
        return self.result

    def die(self) -> None:
        """End the operation where it is, as the end of the process would."""
        self._steps.close()
        self.ended = True

    def _advance(self, advance: Callable[[Any], Any], value: object) -> None:
        try:
            effect = advance(value)
            while isinstance(effect, Pause):
                effect = self._steps.send(None)
            self._effect = effect
        except StopIteration as end:
            self.ended, self.result = True, end.value


def orders(start: Callable[[], Sequence[Driven]]) -> Iterator[tuple[str, Sequence[Driven]]]:
    """Run operations, with their requests in every possible order.

    ``start`` makes new operations for each order. Yield each order, in words, with its operations
    after they have ended.
    """
    path: list[int] = []
    while True:
        operations = start()
        taken: list[tuple[int, int]] = []
        while waiting := [each for each in operations if not each.ended]:
            choice = path[len(taken)] if len(taken) < len(path) else 0
            taken.append((choice, len(waiting)))
            waiting[choice].go_on()
        yield " ".join(str(choice) for choice, _ in taken), operations
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return
        path = [choice for choice, _ in taken]
        path[-1] += 1
