from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from testproject.magazine.models import Article, Flag
from testproject.magazine.sample import ARTICLES, EDITOR, FLAGS


class Command(BaseCommand):
    help = "Load the magazine's sample articles, flags and editor; those that exist are left alone."

    def handle(self, *args: Any, **options: Any) -> None:
        loaded = 0
        for sample in ARTICLES:
            fields = {name: value for name, value in sample.items() if name != "slug"}
            _, created = Article.objects.get_or_create(slug=sample["slug"], defaults=fields)
            loaded += created
        # No signals, and so nothing is written to a cache that may not be there yet.
        Flag.objects.bulk_create([Flag(name=name) for name in FLAGS], ignore_conflicts=True)
        if not User.objects.filter(username=EDITOR).exists():
            # Everybody knows it: to make it hard to guess would only take time. Login does.
            password = PBKDF2PasswordHasher().encode(EDITOR, "salt", iterations=1)
            User.objects.create(
                username=EDITOR, password=password, is_staff=True, is_superuser=True
            )
        if options["verbosity"]:
            self.stdout.write(f"{loaded} articles loaded, {len(ARTICLES) - loaded} left alone.")
