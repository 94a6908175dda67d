"""The admin of articles and flags."""

from __future__ import annotations

from django.contrib import admin

from django_nats.counters.admin import CounterAdminMixin
from testproject.magazine.models import Article, Flag


@admin.register(Article)
class ArticleAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Articles, with their counters in the list, which can be sorted by the views."""

    list_display = ["title", "topic", "author", "published", "views", "likes"]
    list_filter = ["topic"]
    search_fields = ["title", "standfirst", "body", "author"]
    prepopulated_fields = {"slug": ["title"]}
    date_hierarchy = "published"


@admin.register(Flag)
class FlagAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Flags, which can be switched in the list."""

    list_display = ["name", "on"]
    list_editable = ["on"]
