"""Settings of the demonstration site.

The parts that matter are CACHES, SESSION_ENGINE and NATS_COUNTERS.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from testproject.regions import Regions

BASE_DIR = Path(__file__).resolve().parent
# The database and the embedded server's store; the tests keep theirs elsewhere.
DATA_DIR = Path(os.environ.get("TESTPROJECT_DATA", BASE_DIR))

# "embedded" starts a private server on 127.0.0.1, which is for development only.
LOCATION = os.environ.get("NATS_URL", "embedded")
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django_nats.cache.NatsCache",
        "LOCATION": LOCATION,
        "OPTIONS": {
            "BUCKET": "testproject",
            # Copies of the flags in every process; see testproject/magazine/flags.py.
            "NEAR_CACHE": {"KEYS": ["flags:*"]},
        },
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"

REGIONS = Regions("river", "north", "south")
NATS_COUNTERS: dict[str, dict[str, Any]] = {
    # Pages that show a counter come without it while the server is away.
    "default": {"LOCATION": LOCATION, "STREAM": "TESTPROJECT", "FAIL_OPEN": True},
    # Each bank of the river counts on a server of its own; what the river has is their sum.
    "north": {**REGIONS.place("north"), "STREAM": "NORTH"},
    "south": {**REGIONS.place("south"), "STREAM": "SOUTH"},
    "river": {
        **REGIONS.place("river"),
        "STREAM": "RIVER",
        "SOURCES": [
            {"STREAM": "NORTH", "DOMAIN": "north"},
            {"STREAM": "SOUTH", "DOMAIN": "south"},
        ],
    },
}
if LOCATION == "embedded":
    CACHES["default"]["OPTIONS"]["EMBEDDED_DIR"] = DATA_DIR / ".nats"
    NATS_COUNTERS["default"]["EMBEDDED_DIR"] = DATA_DIR / ".nats"

# A demonstration on the reader's own machine: neither of these is for a site on the internet.
DEBUG = True
SECRET_KEY = "demo-only-this-key-is-public-and-protects-nothing"
ALLOWED_HOSTS = [".localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_nats",
    "testproject.magazine",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "testproject.urls"
WSGI_APPLICATION = "testproject.wsgi.application"
ASGI_APPLICATION = "testproject.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA_DIR / "db.sqlite3"},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # The statistics page asks every second: its request lines would drown everything else.
    "loggers": {"django.server": {"level": "WARNING"}},
}
