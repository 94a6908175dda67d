from __future__ import annotations

from django.db import models
from django.urls import reverse

from django_nats.counters import CounterField, CounterQuerySet

WORDS_A_MINUTE = 220


class Topic(models.TextChoices):
    WATER = "water", "Water"
    LIGHT = "light", "Light"
    BREAD = "bread", "Bread"
    MAPS = "maps", "Maps"


class Article(models.Model):
    title = models.CharField(max_length=120)
    slug = models.SlugField(unique=True)
    standfirst = models.CharField(
        max_length=240, help_text="One sentence under the title that says why to read on."
    )
    body = models.TextField(help_text="An empty line begins a new paragraph.")
    author = models.CharField("author name", max_length=80)
    topic = models.CharField(max_length=8, choices=Topic.choices)
    published = models.DateField()
    views = CounterField()
    likes = CounterField()

    objects = CounterQuerySet.as_manager()

    class Meta:
        ordering = ["-published", "title"]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("article", args=[self.slug])

    @property
    def paragraphs(self) -> list[str]:
        return [" ".join(block.split()) for block in self.body.split("\n\n")]

    @property
    def minutes(self) -> int:
        return max(1, round(len(self.body.split()) / WORDS_A_MINUTE))


class Flag(models.Model):
    """A switch of the site. Saving it tells every process: see ``flags``."""

    name = models.SlugField(unique=True)
    on = models.BooleanField(default=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
