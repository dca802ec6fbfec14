"""What the commands of `distillery` do; how they are typed is in `typed`."""
