from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from testproject.magazine.models import Article
from testproject.magazine.sample import ARTICLES


class Command(BaseCommand):
    help = "Load the magazine's sample articles; those that exist are left as they are."

    def handle(self, *args: Any, **options: Any) -> None:
        loaded = 0
        for sample in ARTICLES:
            fields = {name: value for name, value in sample.items() if name != "slug"}
            _, created = Article.objects.get_or_create(slug=sample["slug"], defaults=fields)
            loaded += created
        if options["verbosity"]:
            self.stdout.write(f"{loaded} articles loaded, {len(ARTICLES) - loaded} left alone.")
