"""Two runs side by side: what changed, what moved beyond its interval; as text and as a page."""
