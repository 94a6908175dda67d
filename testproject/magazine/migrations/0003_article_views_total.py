"""Create the column to which the views are copied, so that the database can sort by them."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the column views_total to articles."""

    dependencies = [
        ("magazine", "0002_flag"),
    ]

    operations = [
        migrations.AddField(
            model_name="article",
            name="views_total",
            field=models.BigIntegerField(
                db_index=True, default=0, verbose_name="views when the site was started"
            ),
        ),
    ]
