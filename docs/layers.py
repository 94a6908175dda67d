"""Draw the pictures of the package's layers from the import contracts in pyproject.toml.

Run ``python docs/layers.py`` after a change of the contracts. A test
compares the pictures with what this script draws.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {
    "django_nats": ROOT / "docs/explanation/layers.svg",
    "django_nats.client": ROOT / "docs/explanation/client.svg",
}
"""The file of the picture of each package whose layers a contract lists."""

CAPTIONS = {
    "django_nats.apps": "Django's AppConfig",
    "django_nats.management": "manage.py nats",
    "django_nats.pytest_plugin": "fixtures",
    "django_nats.templatetags": "the filter compact",
    "django_nats.contrib": "throttles for Django REST framework",
    "django_nats.checks": "system checks",
    "django_nats.raw": "connection() and run()",
    "django_nats.limits": "rate limits and quotas",
    "django_nats.sessions": "sessions in a cache",
    "django_nats.sessions_db": "… in the database",
    "django_nats.cache": "NatsCache, the cache backend",
    "django_nats.counters": "counters and CounterField",
    "django_nats.nearcache": "copies of values in the process",
    "django_nats.conf": "settings → frozen dataclasses",
    "django_nats.values": "Python values ⇄ payloads and headers",
    "django_nats.client": "operations on the server: imports nats-py, and no Django",
    "django_nats.keys": "keys ⇄ subjects",
    "django_nats.serializers": "values ⇄ bytes",
    "django_nats.compressors": "bytes ⇄ fewer bytes",
    "django_nats.devserver": "a server for development",
    "django_nats.stats": "what stats() returns",
    "django_nats.signals": "key_changed",
    "django_nats.printable": "text safe for terminals",
    "django_nats.testrun": "is this a test run?",
    "django_nats.merging": "changes of dictionaries",
    "django_nats.exceptions": "every error",
    "django_nats.realtime": "the clock for all durations",
    "django_nats.client.process": "sessions, buckets, streams; forks and exit",
    "django_nats.client.operations": "where every operation passes; FAIL_OPEN",
    "django_nats.client.drivers": "run an operation from a thread or from an event loop",
    "django_nats.client.feed": "the change feed of a bucket, reopened when it may have a gap",
    "django_nats.client.kv": "operations on a bucket",
    "django_nats.client.counters": "operations on a counter stream",
    "django_nats.client.plain": "nats-py clients",
    "django_nats.client.transport": "the connection: requests out, replies in",
    "django_nats.client.streams": "any JetStream stream: open, ask, read",
    "django_nats.client.protocol": "bytes ⇄ frames, headers and replies: pure functions",
}
"""What each module is for, in a few words."""

WIDTH, GAP, LINE, PADDING = 480, 8, 40, 12
COLUMNS = 3


def pictures() -> dict[Path, str]:
    """Return the content of each picture's file."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    drawn = {}
    for contract in contracts["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            (package,) = contract["containers"]
            layers = [re.split(r"\s*[|:]\s*", layer) for layer in contract["layers"]]
            drawn[PICTURES[package]] = draw(package, layers)
    return drawn


def draw(package: str, layers: list[list[str]]) -> str:
    """Return the picture of a package's layers, a box for each, the first one at the top."""
    boxes, top = [], 1
    for layer in layers:
        columns = min(len(layer), COLUMNS)
        height = LINE * -(-len(layer) // columns) + 10
        boxes.append(f'  <rect x="1" y="{top}" width="{WIDTH - 2}" height="{height}" rx="6"/>')
        for number, module in enumerate(layer):
            left = 1 + PADDING + number % columns * (WIDTH - 2) // columns
            line = top + number // columns * LINE
            caption = escape(CAPTIONS[f"{package}.{module}"])
            boxes.append(f'  <text x="{left}" y="{line + 21}">{escape(module)}</text>')
            boxes.append(f'  <text class="small" x="{left}" y="{line + 37}">{caption}</text>')
        top += height + GAP
    label = "; ".join(", ".join(layer) for layer in layers)
    return "\n".join(
        [
            "<!-- Drawn by docs/layers.py from the contracts in pyproject.toml. -->",
            f'<svg class="layers" viewBox="0 0 {WIDTH} {top - GAP + 1}" role="img"'
            f' aria-label="The layers of {package}, from top to bottom: {label}"'
            ' xmlns="http://www.w3.org/2000/svg">',
            *boxes,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    for file, picture in pictures().items():
        file.write_text(picture, encoding="utf-8")
