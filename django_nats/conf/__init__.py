"""Settings, read and checked, as frozen dataclasses: a cache's, and a counter alias's."""
