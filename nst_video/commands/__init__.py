"""The commands, one module each: `make_parser()` says what it takes, `run(words, stopper)` does it and returns the exit
code.
"""
