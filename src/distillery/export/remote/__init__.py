"""Modules that travel with a student: each is copied as it stands, and imports only diffusers."""
