"""Bytes to a server and back: the connection, its loop, and the requests that wait for answers."""
