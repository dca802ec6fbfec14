"""The teacher: fetching, checking, loading it, and the cache of its answers."""
