"""The URLs of the site: the magazine, and the admin."""

from __future__ import annotations

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", include("testproject.magazine.urls")),
    path("admin/", admin.site.urls),
    # Browsers ask for it where a page names no icon, as those of the admin.
    path("favicon.ico", RedirectView.as_view(url=static("magazine/icon.svg"))),
]
