"""Packages of others that walk a model's fields, on models with counters."""
