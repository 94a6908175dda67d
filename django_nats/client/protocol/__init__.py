"""The bytes that go over the wire and come back, and what an operation may ask for.

Pure functions and classes: nothing here does I/O.
"""
