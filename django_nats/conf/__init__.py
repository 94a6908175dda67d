"""The settings of caches and counters, read, checked, and returned as immutable objects."""
