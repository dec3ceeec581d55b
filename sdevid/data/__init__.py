"""From video files, or drawn motion of a known law, to the clips of each training step."""
