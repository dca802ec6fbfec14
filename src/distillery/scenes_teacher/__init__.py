"""The recipe of the tiny teacher that ships with the project."""

# Of condition maps, for which it brings ControlNets with it.
KINDS = ("canny", "sketch", "segmentation", "depth")
