"""The management commands of the magazine."""
