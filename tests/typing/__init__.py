"""Code as users write it, for type checkers: `tox -e typing`. It is imported but not executed."""
