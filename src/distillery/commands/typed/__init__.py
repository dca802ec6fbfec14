"""How the commands of `distillery` are typed: arguments, options, help. `cli` registers them."""
