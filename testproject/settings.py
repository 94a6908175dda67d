"""The settings of the demonstration site.

CACHES, SESSION_ENGINE and NATS_COUNTERS show how django-nats is configured.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from testproject.regions import Regions

BASE_DIR = Path(__file__).resolve().parent
# Holds the database and the embedded server's store. The tests set another directory.
DATA_DIR = Path(os.environ.get("TESTPROJECT_DATA", BASE_DIR))

# "embedded" starts a private server on 127.0.0.1. It is for development only.
LOCATION = os.environ.get("NATS_URL", "embedded")
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django_nats.cache.NatsCache",
        "LOCATION": LOCATION,
        "OPTIONS": {
            "BUCKET": "testproject",
            # Every process keeps copies of the flags. See testproject/magazine/flags.py.
            "NEAR_CACHE": {"KEYS": ["flags:*"]},
        },
    }
}
# While the server is away, the database goes on with the sessions.
SESSION_ENGINE = "django_nats.sessions_db"

REGIONS = Regions("river", "north", "south")
NATS_COUNTERS: dict[str, dict[str, Any]] = {
    # With FAIL_OPEN, pages are shown without their counters while the server is unavailable.
    "default": {"LOCATION": LOCATION, "STREAM": "TESTPROJECT", "FAIL_OPEN": True},
    # Each bank of the river counts on its own server. The river has the sum of both.
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
# A refused request gets a response of its own, and not the page of a PermissionDenied.
NATS_LIMITS = {"STATUS": 429, "FAIL_OPEN": True}
# The tests set this variable, so that a busy machine is not taken for an outage.
if "TESTPROJECT_TIMEOUT" in os.environ:
    seconds = float(os.environ["TESTPROJECT_TIMEOUT"])
    for options in (CACHES["default"]["OPTIONS"], NATS_COUNTERS["default"]):
        options |= {"CONNECT_TIMEOUT": seconds, "REQUEST_TIMEOUT": seconds}
    for region in ("north", "south", "river"):
        patience = {"CONNECT_TIMEOUT": seconds, "REQUEST_TIMEOUT": seconds, "DEADLINE": 6 * seconds}
        NATS_COUNTERS[region] |= patience
if LOCATION == "embedded":
    CACHES["default"]["OPTIONS"]["EMBEDDED_DIR"] = DATA_DIR / ".nats"
    NATS_COUNTERS["default"]["EMBEDDED_DIR"] = DATA_DIR / ".nats"

# This site runs on the reader's own machine. On the internet, use neither DEBUG nor this key.
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
    # The statistics page sends a request every second, which would fill the log, and so would the
    # requests that a limit refuses.
    "loggers": {
        "django.server": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
    },
}
