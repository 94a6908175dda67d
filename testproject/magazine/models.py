"""The models of the magazine: articles with two counters each, and flags."""

from __future__ import annotations

from django.db import models
from django.urls import reverse

from django_nats.counters import CounterField, CounterQuerySet, SnapshotField

WORDS_PER_MINUTE = 220


class Topic(models.TextChoices):
    """The topics of articles."""

    WATER = "water", "Water"
    LIGHT = "light", "Light"
    BREAD = "bread", "Bread"
    MAPS = "maps", "Maps"


class Article(models.Model):
    """An article, with counters of its views and likes."""

    title = models.CharField(max_length=120)
    slug = models.SlugField(unique=True)
    standfirst = models.CharField(
        max_length=240, help_text="One sentence under the title that says why to read on."
    )
    body = models.TextField(help_text="An empty line begins a new paragraph.")
    author = models.CharField("author name", max_length=80)
    topic = models.CharField(max_length=8, choices=Topic.choices)
    published = models.DateField()
    views = CounterField(snapshot="views_total")
    views_total = SnapshotField("views when the site was started", db_index=True)
    likes = CounterField()

    objects = CounterQuerySet.as_manager()

    class Meta:
        """The newest articles come first."""

        ordering = ["-published", "title"]

    def __str__(self) -> str:
        """Return the title."""
        return self.title

    def get_absolute_url(self) -> str:
        """Return the URL of the article's page."""
        return reverse("article", args=[self.slug])

    @property
    def paragraphs(self) -> list[str]:
        """Return the paragraphs of the body, without line breaks."""
        return [" ".join(block.split()) for block in self.body.split("\n\n")]

    @property
    def minutes(self) -> int:
        """Return the time that reading the article takes, in minutes."""
        return max(1, round(len(self.body.split()) / WORDS_PER_MINUTE))


class Flag(models.Model):
    """A feature flag. Saving one updates the cache, and thereby every process: see ``flags``."""

    name = models.SlugField(unique=True)
    on = models.BooleanField(default=False)

    class Meta:
        """Flags are sorted by name."""

        ordering = ["name"]

    def __str__(self) -> str:
        """Return the name."""
        return self.name
