"""The pages of the demonstration, which the home page lists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exhibit:
    """A page, and the feature that it shows."""

    title: str
    url_name: str
    summary: str
    shows: str


EXHIBITS = (
    Exhibit(
        "A cached page",
        "latest",
        "Open an article, note when it was rendered, and reload. Then delete the cached page.",
        "cache_page",
    ),
    Exhibit(
        "A slow sidebar",
        "almanac",
        "The page is rendered each time, its slow sidebar only once in thirty seconds.",
        "{% cache %}",
    ),
    Exhibit(
        "Your reading",
        "reading",
        "The magazine remembers which articles you have opened, in a session in the cache.",
        "SESSION_ENGINE",
    ),
    Exhibit(
        "The dispatch board",
        "dispatches",
        "An async view reads twenty values: in turn, all at once, and in a single request.",
        "await cache.aget()",
    ),
    Exhibit(
        "The cache, live",
        "cache",
        "Entries, bytes, hits, misses and the round trip to the server, second by second.",
        "await cache.astats()",
    ),
    Exhibit(
        "Views and likes",
        "articles",
        "Ten articles with two counters each, read in a single request. Open one, and like it.",
        "views = CounterField()",
    ),
    Exhibit(
        "Live totals",
        "live",
        "Open this page in two windows and like an article in one: the other shows it, too.",
        "await aprefetch_counters()",
    ),
    Exhibit(
        "Feature flags",
        "flags",
        "Switch a flag in the admin: two other processes show it, and how long it took.",
        'OPTIONS["NEAR_CACHE"]',
    ),
    Exhibit(
        "Limits and quotas",
        "limits",
        "Send requests until the API refuses them. Use up the quota of a village, and refund it.",
        "@ratelimit(…)",
    ),
    Exhibit(
        "Two banks, one river",
        "regions",
        "Two servers in two regions count independently, and a third has their exact sum.",
        'NATS_COUNTERS[…]["SOURCES"]',
    ),
)
