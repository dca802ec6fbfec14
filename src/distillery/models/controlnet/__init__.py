"""Small ControlNets: architectures and their start from a teacher's."""
