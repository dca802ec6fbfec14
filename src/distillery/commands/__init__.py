"""What the `distillery` command does beyond the library."""
