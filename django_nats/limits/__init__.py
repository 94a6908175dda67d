"""Limits on how often something may happen, counted by the server, and quotas."""
