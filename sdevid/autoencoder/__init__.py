"""Autoencoders of pictures, on which a model may draw: read from folders, trained, frozen."""
