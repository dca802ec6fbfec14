"""The teacher: loading, noise plan, output cache, training of the shipped one."""
