"""The operations on a bucket."""
