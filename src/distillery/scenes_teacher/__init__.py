"""The recipe of the tiny teacher that ships with the project."""
