"""Stacks of frames that are no video: arrays, TIFF, folders of pictures, fields with times."""
