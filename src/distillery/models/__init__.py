"""Student architectures, their initialisation from a teacher, and what they cost."""
