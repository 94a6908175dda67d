"""A process that uses one session, in a database and a cache that it shares with other processes.

``python -m tests.sessions_db.worker '{"CACHES": …, "DATABASES": …}' <task> <argument>…``
"""

from __future__ import annotations

import json
import sys

import django
from django.conf import settings

from tests.support.sessions import SESSIONS_DB, Request


def create() -> None:
    """Print the key of a new session."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    print(Request().set(old=1).save().key)


def change(key: str, name: str, times: str) -> None:
    """Change keys of its own in a session many times, once it is told to begin."""
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(1, int(times) + 1):
        request = Request(key).load()
        request.set(**{name: number, f"{name}:{number}": True})
        if number > 1:
            request.drop(f"{name}:{number - 1}")
        request.save()


def show(key: str) -> None:
    """Print what the database has of a session, and what is read through the cache."""
    from django.contrib.sessions.models import Session

    print(json.dumps([Session.objects.get(session_key=key).get_decoded(), Request(key).data]))


def main() -> None:
    settings.configure(
        **json.loads(sys.argv[1]),
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.sessions"],
        SECRET_KEY="only-for-tests",
        SESSION_ENGINE=SESSIONS_DB,
        USE_TZ=True,
    )
    django.setup()
    {"create": create, "change": change, "show": show}[sys.argv[2]](*sys.argv[3:])


if __name__ == "__main__":
    main()
