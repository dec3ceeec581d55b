"""Fused operators for neural SDEs: a folder an operator, `reference.py` beside `kernel.py`."""
