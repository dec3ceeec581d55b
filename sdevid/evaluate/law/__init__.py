"""The law of motion along tracked positions, of real film and of generated film alike."""
