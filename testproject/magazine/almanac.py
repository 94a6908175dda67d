"""The figures of the almanac page, which take long to compute."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from testproject.magazine.models import Article

PAUSE_S = 0.7
"""The pause that makes the report slow, since the words of ten articles are counted quickly."""
LONG_WORD = re.compile(r"[a-z]{7,}")


@dataclass(frozen=True)
class Almanac:
    """Figures about all articles, and the seconds that computing them took."""

    words: int
    longest: Article
    favourites: list[tuple[str, int]]
    computed_at: datetime
    seconds: float


def compute() -> Almanac | None:
    """Return the figures, slowly, or None if there are no articles."""
    began = time.perf_counter()
    articles = list(Article.objects.all())
    if not articles:
        return None
    time.sleep(PAUSE_S)
    text = " ".join(article.body for article in articles)
    return Almanac(
        words=len(text.split()),
        longest=max(articles, key=lambda article: len(article.body)),
        favourites=Counter(LONG_WORD.findall(text.lower())).most_common(5),
        computed_at=timezone.now(),
        seconds=time.perf_counter() - began,
    )
