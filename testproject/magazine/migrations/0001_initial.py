"""Create the articles. Their counters need no migration."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the model Article."""

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Article",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("title", models.CharField(max_length=120)),
                ("slug", models.SlugField(unique=True)),
                (
                    "standfirst",
                    models.CharField(
                        help_text="One sentence under the title that says why to read on.",
                        max_length=240,
                    ),
                ),
                ("body", models.TextField(help_text="An empty line begins a new paragraph.")),
                ("author", models.CharField(max_length=80, verbose_name="author name")),
                (
                    "topic",
                    models.CharField(
                        choices=[
                            ("water", "Water"),
                            ("light", "Light"),
                            ("bread", "Bread"),
                            ("maps", "Maps"),
                        ],
                        max_length=8,
                    ),
                ),
                ("published", models.DateField()),
            ],
            options={
                "ordering": ["-published", "title"],
            },
        ),
    ]
