"""Settings with the packages that these tests install: ``tox -e neighbours``."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as OURS

INSTALLED_APPS = [
    *OURS,
    "auditlog",
    "django_filters",
    "django_tables2",
    "drf_spectacular",
    "graphene_django",
    "import_export",
    "polymorphic",
    "rest_framework",
    "simple_history",
    "strawberry_django",
    "tests.neighbours",
]
REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
