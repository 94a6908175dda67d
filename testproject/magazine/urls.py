from __future__ import annotations

from django.urls import path

from testproject.magazine import views

urlpatterns = [
    path("", views.home, name="home"),
    path("articles/", views.articles, name="articles"),
    path("articles/latest/", views.latest, name="latest"),
    path("articles/<slug:slug>/", views.article, name="article"),
    path("topics/<slug:topic>/", views.articles, name="topic"),
    path("almanac/", views.almanac, name="almanac"),
    path("reading/", views.reading, name="reading"),
    path("dispatches/", views.dispatches, name="dispatches"),
    path("cache/", views.live, name="cache"),
    path("cache/stats.json", views.cache_stats, name="cache-stats"),
]
