"""All that a family of students is."""
