from django.db import models


class Order(models.Model):
    article = models.TextField()
    customer = models.TextField(default="cash")
