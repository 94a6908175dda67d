"""The change feed of a bucket: what the server announces about its keys."""
