"""Measures on video and on motion: is the model good, and is its SDE right?"""
