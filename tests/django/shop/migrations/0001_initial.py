from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = (
        migrations.CreateModel(
            name="Item",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=40, unique=True)),
                ("price", models.DecimalField(max_digits=8, decimal_places=2, default=0)),
                ("details", models.JSONField(default=dict)),
                ("key", models.UUIDField(null=True)),
                ("added", models.DateTimeField(null=True)),
            ],
        ),
    )
