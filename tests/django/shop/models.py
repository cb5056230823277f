from __future__ import annotations

from django.db import models


class Item(models.Model):
    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=40, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    details = models.JSONField(default=dict)
    key = models.UUIDField(null=True)
    added = models.DateTimeField(null=True)

    class Meta:
        app_label = "shop"
