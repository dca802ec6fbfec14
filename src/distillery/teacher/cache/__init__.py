"""The teacher's cached answers: files, sizes, views, writing, reading."""
