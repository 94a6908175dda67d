"""The URLs of the magazine."""

from __future__ import annotations

from django.urls import path

from testproject.magazine import api, views

urlpatterns = [
    path("", views.home, name="home"),
    path("articles/", views.articles, name="articles"),
    path("articles/latest/", views.latest, name="latest"),
    path("articles/<slug:slug>/", views.article, name="article"),
    path("articles/<slug:slug>/like/", views.like, name="like"),
    path("topics/<slug:topic>/", views.articles, name="topic"),
    path("almanac/", views.almanac, name="almanac"),
    path("reading/", views.reading, name="reading"),
    path("dispatches/", views.dispatches, name="dispatches"),
    path("cache/", views.cache_figures, name="cache"),
    path("cache/stats.json", views.cache_stats, name="cache-stats"),
    path("live/", views.live, name="live"),
    path("live/totals/", views.live_totals, name="live-totals"),
    path("flags/", views.flags, name="flags"),
    path("flags/seen/", views.flags_seen, name="flags-seen"),
    path("limits/", views.limits, name="limits"),
    path("limits/usage/", views.limits_usage, name="limits-usage"),
    path("bakery/<slug:village>/order/", views.order, name="order"),
    path("bakery/give-back/", views.give_back, name="give-back"),
    path("api/articles/", api.articles, name="api-articles"),
    path("api/search/", api.search, name="api-search"),
    path("regions/", views.regions, name="regions"),
    path("regions/totals/", views.regions_totals, name="regions-totals"),
    path("regions/<slug:bank>/", views.count, name="count"),
]
