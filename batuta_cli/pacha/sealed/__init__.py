"""Verified bytes: a model is copied or decrypted into sealed memory, and the sealed bytes are the ones verified.

The files here, from the bytes up: `memfd`, one file in memory; `capacity`, how much memory there is and whether it can
be swapped; `content`, a model in memory, which `verification` compares with its signatures; `opening`, file objects for
Python programs. `pacha/run.py` gives the memory to another program.
"""
