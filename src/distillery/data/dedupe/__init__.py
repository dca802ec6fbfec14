"""Near-duplicates and the splits drawn over their clusters."""
