"""The texts of generated files; `python workflow/sync.py` writes them."""
