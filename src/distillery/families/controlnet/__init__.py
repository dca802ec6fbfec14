"""Small ControlNets that learn from the teacher's."""
