"""From a source of captioned images to raw shards."""
