"""Videos on disk, or drawn ones, cut into shards; and shards compared with their index."""
