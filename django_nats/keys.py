"""Conversion of Django keys and counter names to NATS subjects, and back. Pure functions.

A KV key is the part of a subject after the bucket's name. Colons separate the tokens of a Django
key, and dots those of a subject, so a hierarchy of keys is a hierarchy of subjects: ``:1:user:42``
becomes ``=.1.user.42``. An empty token is written as ``=``, and every UTF-8 byte outside
``[-/_a-zA-Z0-9]`` as ``=XX`` (upper-case hex). Therefore no part of a key can act as a separator or
a wildcard on the server, and every NATS client accepts the result as a KV key.

A key that is too long for a subject is written as a readable head, followed by ``=h`` and the
SHA-256 of the whole key (lower-case hex). No escape begins with ``h``, so the result never equals
the KV key of another key. Names that begin with ``=`` and any other lower-case letter are reserved
for this package.
"""

from __future__ import annotations

import hashlib
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from .exceptions import InvalidKey

MAX_SUBJECT_BYTES = 1024
"""The length of the longest KV key or counter subject."""

CLEAR = "=clear"
"""The reserved KV key that announces that a bucket was cleared."""

_SURELY_SHORT = (MAX_SUBJECT_BYTES - len("=")) // len("=2E")
"""A plain key of at most this length has a KV key that is not too long, even if all are dots."""

_SAFE = "-/_a-zA-Z0-9"
_HASH_LENGTH = len("=h") + hashlib.sha256().digest_size * 2

# The dot is included because Django's own keys (sessions, cached pages) contain many dots.
_PLAIN_KEY = re.compile(rf":?[{_SAFE}.]+(?::[{_SAFE}.]+)*")
_PLAIN_TEXT = re.compile(rf"[{_SAFE}.:\n]+")
_PLAIN_TOKEN = re.compile(f"[{_SAFE}]+")
_HASH = re.compile(r"=h[0-9a-f]{64}\Z")
_RESERVED = re.compile(r"=[a-z]")
_ESCAPE = re.compile(r"=([0-9A-F]{2})")
_CUT_ESCAPE = re.compile(r"=[0-9A-F]?\Z")

_ESCAPED = [chr(b) if re.match(f"[{_SAFE}]", chr(b)) else f"={b:02X}" for b in range(256)]
_ESCAPED_BUT_COLONS = ["." if b == ord(":") else text for b, text in enumerate(_ESCAPED)]

_ANY_RUN = ".*"
_ATOM = re.compile(
    r"(?P<run>\*+)"
    r"|(?P<one>\?)"
    r"|(?P<set>\[)(?P<negated>[\^!]?)(?P<members>(?:\\.|[^\]]-.|[^\]])*)\]?"
    r"|\\?(?P<literal>.)",
    re.DOTALL,
)
_MEMBER = re.compile(r"\\(?P<escaped>.)|(?P<low>.)-(?P<high>.)|(?P<plain>.)", re.DOTALL)


def encode(key: str, *, limit: int = MAX_SUBJECT_BYTES) -> str:
    """Return the KV key of a made Django key. It is hashed if it would exceed ``limit`` bytes.

    The result has at most ``limit`` bytes, or the 66 bytes of a hash if the limit is lower. With
    the same limit, two keys never have the same KV key. Raise InvalidKey if the key contains a lone
    surrogate.
    """
    # No lru_cache: it saves 0.5 µs on a hit, costs 0.2 µs on a miss, and keeps long keys in memory.
    if _PLAIN_KEY.fullmatch(key):
        subject = key.replace(".", "=2E").replace(":", ".")
        if subject[0] == ".":
            subject = "=" + subject
        if len(subject) <= limit:
            return subject
    data = _utf8(key)
    subject = _key_subject(data)
    if len(subject) <= limit:
        return subject
    head = _CUT_ESCAPE.sub("", subject[: _head_room(limit)])
    return f"{head}=h{hashlib.sha256(data).hexdigest()}"


def encode_plain(keys: Sequence[str]) -> list[str] | None:
    """Return what ``encode`` returns for each key, or None if a key is not a plain one.

    A plain key needs no hash, and no escapes but those of dots. For many keys this takes a sixth of
    the time of calling ``encode`` for each: each check looks at all keys at once.
    """
    text = _encode_lines("\n".join(keys))
    if text is not None:
        subjects = text.split("\n")
        # A key that contains a line break looks like two keys.
        if len(subjects) == len(keys) and max(map(len, subjects)) <= MAX_SUBJECT_BYTES:
            return subjects
    return None


def decode_plain(text: str) -> list[str] | None:
    """Return what ``decode`` returns for each line of a text, or None if one is not a plain key's.

    A plain key is one as for ``encode_plain``, of at most 341 characters. For many keys this takes
    an eighth of the time of calling ``decode`` for each.
    """
    guess = f"\n{text}".replace(".", ":").replace("=2E", ".").replace("\n=:", "\n:")[1:]
    # As in ``decode``, encoding the guess shows whether it is right.
    if _encode_lines(guess) == text:
        keys = guess.split("\n")
        if max(map(len, keys)) <= _SURELY_SHORT:
            return keys
    return None


def decode(subject_key: str, *, limit: int = MAX_SUBJECT_BYTES) -> str | None:
    """Return the made Django key of a KV key, or None if it is hashed.

    Raise InvalidKey if ``encode`` returns this KV key for no key, for example for a reserved name.
    Only the form of a hashed one is checked. To check the hash, encode the original key, which is
    stored with the value, and compare.
    """
    # Nearly every key has no escapes but these. Encoding the guess shows whether it is right.
    key = subject_key.replace(".", ":").replace("=2E", ".").removeprefix("=")
    if "=" not in key and encode(key, limit=limit) == subject_key:
        return key
    hashed = _HASH.search(subject_key)
    # A safe byte must be able to follow the head: it ends neither within an escape nor with the "="
    # of an empty token.
    text = subject_key[: hashed.start()] + "-" if hashed else subject_key
    longest = max(limit, _HASH_LENGTH) if hashed else limit
    with suppress(UnicodeError):
        data = _unescape(":".join("" if part == "=" else part for part in text.split(".")))
        if _key_subject(data) == text and len(subject_key) <= longest:
            if not hashed:
                return data.decode()
            # The head may end within a character of several bytes.
            getincrementaldecoder("utf-8")().decode(data[:-1])
            return None
    raise InvalidKey(f"{subject_key!r} is not the KV key of a cache key.")


def is_hashed(subject_key: str) -> bool:
    """Return whether a KV key ends in a hash. The original key is then in a header of the value."""
    return len(subject_key) >= _HASH_LENGTH and _HASH.search(subject_key) is not None


def is_reserved(subject_key: str) -> bool:
    """Return whether a KV key is reserved for this package, and not the KV key of a cache key."""
    return _RESERVED.match(subject_key) is not None and not is_hashed(subject_key)


def matcher(pattern: str) -> Callable[[str], object]:
    """Return a function that returns a true value if a made Django key matches a glob.

    Globs have the syntax of Redis, but match characters instead of bytes. ``*`` matches any run of
    characters, including colons; ``?`` any one character; ``[abc]`` and ``[a-z]`` one of those
    listed; ``[^abc]`` one of all others. So does ``[!abc]``, which Redis lacks. A backslash makes
    the next character a literal, also in brackets. As in Redis, ``]`` is a member only if it is
    escaped, any character after ``a-`` ends that range, and brackets that are not closed end with
    the pattern. Matching is case-sensitive.
    """
    runs = [""]
    for _, regex in _atoms(pattern):
        if regex == _ANY_RUN:
            runs.append("")
        else:
            runs[-1] += regex
    first, *others = runs
    expression = first
    # If a glob matches, it also matches with each run between two stars at its leftmost place. The
    # lookaheads keep the regex from trying all other places as well, which could take very long.
    for number, run in enumerate(others[:-1]):
        expression += f"(?=(?P<run{number}>{_ANY_RUN}?{run}))(?P=run{number})"
    if others:
        expression += _ANY_RUN + others[-1]
    return re.compile(expression, re.DOTALL).fullmatch


def subject_filter(pattern: str, *, limit: int = MAX_SUBJECT_BYTES) -> str:
    """Return the narrowest subject filter for the KV keys of all keys that match a glob.

    The filter is relative to the bucket. It may let keys through that do not match the glob, which
    ``matcher`` has to reject. For a glob without wildcards it is one KV key, which may be hashed.
    For any other glob it consists of the whole tokens before the first wildcard, and ``>``. The
    number of tokens that follow is unknown: ``*`` may match colons, and a hash may replace any
    number of tokens. The filter contains no more tokens than fit into the head of a hashed key.
    Raise InvalidKey as ``encode`` does.
    """
    start = ""
    for literal, _ in _atoms(pattern):
        if literal is None:
            break
        start += literal
    else:
        return encode(start, limit=limit)
    tokens, colon, _ = start.rpartition(":")
    kept = _key_subject(_utf8(tokens)) + "." if colon else ""
    return kept[: kept.rfind(".", 0, _head_room(limit)) + 1] + ">"


def is_prefix(pattern: str, *, limit: int = MAX_SUBJECT_BYTES) -> bool:
    """Return True if all keys that ``subject_filter`` lets through match the glob.

    That is so for ``*``, and for text that ends with a colon, followed by ``*``.
    """
    *literals, last = [("", ""), *_atoms(pattern)]
    start = ""
    for literal, _ in literals:
        if literal is None:
            return False
        start += literal
    is_whole = not start or start[-1] == ":"
    return last[1] == _ANY_RUN and is_whole and len(_key_subject(_utf8(start))) <= _head_room(limit)


def counter_subject(*parts: str) -> str:
    """Return the subject of a counter.

    A single part is a name whose tokens are separated by dots: ``clicks.eu.home``. Of several parts
    each is one token, with the dots it may contain. Every byte outside ``[-/_a-zA-Z0-9]``, such as
    a colon, is escaped as in keys. Raise InvalidKey if the name or a token is empty, contains a
    lone surrogate, or if the subject has more than MAX_SUBJECT_BYTES bytes.
    """
    tokens = parts[0].split(".") if len(parts) == 1 else parts
    return _counter_subject([_escape(token) for token in tokens], parts)


def token(text: str) -> str:
    """Return a token of a subject: the text, with bytes outside ``[-/_a-zA-Z0-9]`` escaped.

    Raise InvalidKey if the text contains a lone surrogate.
    """
    return _escape(text)


def text_of_token(token: str) -> str:
    """Return the text of which a string is the token. Raise InvalidKey if there is none."""
    with suppress(UnicodeError, InvalidKey):
        text = _unescape(token).decode()
        if _escape(text) == token:
            return text
    raise InvalidKey(f"{token!r} is not the token of a text.")


def counter_filter(pattern: str) -> str:
    """Return the subject filter for the counters whose names match a pattern.

    A pattern is a name in which a token ``*`` stands for any one token, and a last token ``>`` for
    one or more tokens. Raise InvalidKey as ``counter_subject`` does, and for ``>`` before the last
    token.
    """
    tokens = pattern.split(".")
    if ">" in tokens[:-1]:
        raise InvalidKey(f"Counter pattern {pattern!r}: '>' can only be the last token; use '*'.")
    escaped = [token if token in ("*", ">") else _escape(token) for token in tokens]
    return _counter_subject(escaped, (pattern,))


def counter_name(subject: str) -> str:
    """Return the name of the counter with a subject.

    Raise InvalidKey if ``counter_subject`` returns this subject for no name, or only for several
    parts of which one contains a dot.
    """
    with suppress(UnicodeError, InvalidKey):
        name = _unescape(subject).decode()
        if counter_subject(name) == subject:
            return name
    raise InvalidKey(f"{subject!r} is not the subject of a counter with a single name.")


def counter_parts(subject: str) -> tuple[str, ...]:
    """Return the parts for which ``counter_subject`` returns a subject.

    Raise InvalidKey if there are none.
    """
    with suppress(UnicodeError, InvalidKey):
        parts = tuple(_unescape(token).decode() for token in subject.split("."))
        if len(parts) > 1 and counter_subject(*parts) == subject:
            return parts
    raise InvalidKey(f"{subject!r} is not the subject of a counter with several parts.")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidKey(
            f"{text!r} contains a lone surrogate, which UTF-8 cannot encode."
        ) from error


def _encode_lines(text: str) -> str | None:
    """Return the KV keys of plain keys, which are the lines of a text, or None if one is not."""
    # No key is empty, and none has an empty token but the first.
    if (
        _PLAIN_TEXT.fullmatch(text)
        and "::" not in text
        and ":\n" not in text
        and "\n\n" not in text
        and text[0] != "\n"
        and text[-1] not in ":\n"
    ):
        text = text.replace(".", "=2E").replace(":", ".").replace("\n.", "\n=.")
        return "=" + text if text[0] == "." else text
    return None


def _escape(token: str) -> str:
    if _PLAIN_TOKEN.fullmatch(token):
        return token
    return _utf8(token).decode("latin-1").translate(_ESCAPED)


def _unescape(text: str) -> bytes:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1")


def _key_subject(key: bytes) -> str:
    tokens = key.decode("latin-1").translate(_ESCAPED_BUT_COLONS).split(".")
    return ".".join([token or "=" for token in tokens])


def _head_room(limit: int) -> int:
    return max(limit - _HASH_LENGTH, 0)


def _counter_subject(tokens: Sequence[str], parts: Sequence[str]) -> str:
    name = parts[0] if len(parts) == 1 else parts
    if not tokens or not all(tokens):
        raise InvalidKey(f"Counter name {name!r}: neither the name nor a token may be empty.")
    subject = ".".join(tokens)
    if len(subject) > MAX_SUBJECT_BYTES:
        raise InvalidKey(
            f"Counter name {name!r}: the subject has {len(subject)} bytes, "
            f"more than {MAX_SUBJECT_BYTES}."
        )
    return subject


def _atoms(pattern: str) -> Iterator[tuple[str | None, str]]:
    """Yield the parts of a glob: the character if the part is a literal, and a regex for it."""
    for atom in _ATOM.finditer(pattern):
        if atom["run"]:
            yield None, _ANY_RUN
        elif atom["one"]:
            yield None, "."
        elif atom["set"]:
            yield None, _character_set(atom["members"], negated=bool(atom["negated"]))
        else:
            yield atom["literal"], re.escape(atom["literal"])


def _character_set(members: str, *, negated: bool) -> str:
    if not members:
        return "." if negated else "(?!)"
    ranges = []
    for member in _MEMBER.finditer(members):
        one = member["escaped"] or member["plain"]
        low, high = (one, one) if one else sorted((member["low"], member["high"]))
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' if negated else ''}{''.join(ranges)}]"
