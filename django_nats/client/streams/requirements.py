"""What a stream must be, even if others made or changed it: each field, and what it breaks.

A field that is not named here, and that settings do not name either, may have any value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .config import NANOSECONDS, StreamConfig, text_of

LONGEST_IDLE_S = 30
"""How long a consumer of this package may be idle before the server deletes it."""


@dataclass(frozen=True)
class Requirement:
    """What one field of a stream's configuration must be, and what does not work otherwise."""

    field: str
    wanted: Any
    """The value that ``nats setup`` sets: the server's default, where settings have no option."""
    breaks: str
    """What does not work with another value."""
    holds: Callable[[Any, Any], bool] | None = None
    """Whether the configuration from settings can do with a value; None: only with ``wanted``."""
    default: Any = None
    """What a field means that the server leaves out."""
    fixed: Callable[[Any], str] = lambda value: ""
    """Why the server cannot change a value to ``wanted``; empty if it can."""
    advice: str = ""
    """What else can be done, beside ``nats setup`` and another stream."""
    is_used: bool = False
    """Whether such a stream is used all the same, as reads and writes work. A check reports it."""
    is_foreign: Callable[[Any, Any], str] | None = None
    """Says what a stream is that is of another kind. Its other fields then say nothing more."""

    def value(self, existing: Mapping[str, Any]) -> Any:
        """Return the field's value in the configuration of a stream."""
        return existing.get(self.field, self.default)

    def is_met(self, config: StreamConfig, value: Any) -> bool:
        """Return True if the configuration from settings can do with a value."""
        if self.holds is not None:
            return self.holds(config, value)
        return bool(value == self.wanted) or (not value and not self.wanted)

    def target(self, config: StreamConfig) -> Any:
        """Return the value that the field should have."""
        return config.stream_config().get(self.field, self.wanted)

    def text(self, config: StreamConfig, value: Any) -> str:
        """Return in words what is wrong with a value."""
        if self.is_foreign is not None:
            return self.is_foreign(config, value)
        target = text_of(self.field, self.target(config))
        return f"{self.field} is {text_of(self.field, value)}, not {target} ({self.breaks})"


def never(reason: str) -> Callable[[Any], str]:
    """Return a function for ``Requirement.fixed``: the server changes no value of the field."""
    return lambda value: reason


def origin(mirror: Mapping[str, Any]) -> str:
    """Return in words of which stream another is a mirror."""
    api_prefix = (mirror.get("external") or {}).get("api")
    return f"{mirror.get('name')} at {api_prefix}" if api_prefix else str(mirror.get("name"))


def overlap(one: str, other: str) -> bool:
    """Return True if a subject exists that matches two filters.

    >>> overlap("$KV.web.>", "*.web.a"), overlap("$KV.web.>", "$KV.shop.>")
    (True, False)
    """
    for mine, theirs in zip(one.split("."), other.split("."), strict=False):
        if ">" in (mine, theirs):
            return True
        if mine != theirs and "*" not in (mine, theirs):
            return False
    return one.count(".") == other.count(".")


def _leaves_subjects(config: StreamConfig, transform: Mapping[str, Any] | None) -> bool:
    if not transform:
        return True
    source, destination = transform.get("src") or ">", transform.get("dest")
    return source == destination or not overlap(source, config.subject_filter)


def _is_patient(config: StreamConfig, limits: Mapping[str, Any] | None) -> bool:
    threshold = (limits or {}).get("inactive_threshold") or 0
    return not 0 < threshold < LONGEST_IDLE_S * NANOSECONDS


def _may_be_direct(config: StreamConfig, value: Any) -> bool:
    return bool(value) or config.reads == "leader"


MIRROR = Requirement(
    "mirror",
    None,
    "it takes no writes, and purges do not reach it, so that reads would undo clear()",
    fixed=never("a mirror belongs to its origin"),
    is_foreign=lambda config, value: (
        f"is a mirror of {origin(value)}: purges do not reach a mirror, so that reads would undo "
        "clear(), and it takes no writes"
    ),
)
"""A mirror has no subjects either, so that this must be the first requirement."""

SHARED = (
    Requirement(
        "sealed",
        False,
        "nothing can be written or deleted",
        fixed=never("the server does not unseal a stream"),
    ),
    Requirement(
        "retention",
        "limits",
        "messages are deleted because of consumers, or because there are none",
        fixed=lambda value: (
            "the server does not change the retention of a work queue"
            if value == "workqueue"
            else ""
        ),
        default="limits",
    ),
    Requirement(
        "subject_transform",
        None,
        "what is written is stored under another name, and not found",
        holds=_leaves_subjects,
    ),
    Requirement("no_ack", False, "no write is answered"),
    Requirement(
        "deny_purge",
        False,
        "nothing can be cleared or reset",
        fixed=never("the server does not permit purges again"),
    ),
    Requirement(
        "allow_direct",
        True,
        "only the leader answers reads",
        holds=_may_be_direct,
        default=False,
        advice='set READS to "leader"',
    ),
    Requirement(
        "max_consumers",
        -1,
        "each near cache, watch() and listing needs a consumer",
        default=-1,
        is_used=True,
        holds=lambda config, value: value <= 0,
    ),
    Requirement(
        "consumer_limits",
        {},
        "listings, and other consumers, are refused",
        holds=_is_patient,
        default={},
        is_used=True,
    ),
)
"""What all streams of this package must be."""


def unmet(config: StreamConfig, existing: Mapping[str, Any]) -> list[Requirement]:
    """Return the requirements that an existing stream does not meet.

    If the stream is of another kind, return only the requirement that says so.
    """
    found = []
    for each in config.requirements:
        if not each.is_met(config, each.value(existing)):
            if each.is_foreign:
                return [each]
            found.append(each)
    return found


def require(config: StreamConfig, existing: Mapping[str, Any]) -> None:
    """Raise the config's ``mismatch`` if an existing stream cannot serve.

    The error names each field at fault, and says what it breaks and what to do.
    """
    wrong = [each for each in unmet(config, existing) if not each.is_used]
    if wrong:
        is_foreign = wrong[0].is_foreign is not None
        whose = f"stream {config.stream}" if is_foreign else config.title
        how = "" if is_foreign else "cannot be relied on: "
        texts = "; ".join(each.text(config, each.value(existing)) for each in wrong)
        raise config.mismatch(
            f"The {whose} exists, but {how}{texts}. {remedy(config, existing, wrong)}"
        )


def remedy(config: StreamConfig, existing: Mapping[str, Any], wrong: Sequence[Requirement]) -> str:
    """Return a sentence that says what to do about requirements that are not met."""
    obstacles = list(filter(None, (each.fixed(each.value(existing)) for each in wrong)))
    is_foreign = any(each.is_foreign for each in wrong)
    choices = [] if obstacles or is_foreign else ["`manage.py nats setup` changes it"]
    if len(wrong) == 1 and wrong[0].advice:
        choices.append(wrong[0].advice)
    choices.append(f"choose another {config.named_by}")
    if not is_foreign and obstacles:
        choices.append(f"delete the stream {config.stream} if its contents are not needed")
        choices[0] = f"`manage.py nats setup` is no help, as {'; '.join(obstacles)}: {choices[0]}"
    text = ", or ".join(choices)
    return f"{text[0].upper()}{text[1:]}."
