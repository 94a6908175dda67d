"""The magazine, the only app of the demonstration site."""
