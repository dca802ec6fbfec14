"""The control adapter: one encoder for several kinds of maps."""
