"""Data: scenes, readers, filters, duplicates, conditions, loading."""
