"""The operations on a counter stream."""
