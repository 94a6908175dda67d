"""``manage.py load_sample_data``: fills the magazine."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from testproject.magazine.models import Article, Flag
from testproject.magazine.sample import ARTICLES, EDITOR, FLAGS


class Command(BaseCommand):
    """The command ``load_sample_data``."""

    help = "Load the magazine's sample articles, flags and editor, unless they exist already."

    def handle(self, *args: Any, **options: Any) -> None:
        """Create what does not exist, and print how many articles were created."""
        loaded = 0
        for sample in ARTICLES:
            fields = {name: value for name, value in sample.items() if name != "slug"}
            _, created = Article.objects.get_or_create(slug=sample["slug"], defaults=fields)
            loaded += created
        # bulk_create() sends no signals, so nothing is written to the cache, which may not be
        # available yet.
        Flag.objects.bulk_create([Flag(name=name) for name in FLAGS], ignore_conflicts=True)
        if not User.objects.filter(username=EDITOR).exists():
            # The password is public, so hashing it many times would be a waste of time. Django
            # hashes it again at the first login.
            password = PBKDF2PasswordHasher().encode(EDITOR, "salt", iterations=1)
            User.objects.create(
                username=EDITOR, password=password, is_staff=True, is_superuser=True
            )
        if options["verbosity"]:
            self.stdout.write(
                f"{loaded} articles loaded, {len(ARTICLES) - loaded} existed already."
            )
