"""The command line: a module a command, which parses, calls one function, and prints.

Results go to standard output, everything else to standard error. Commands load when they are
called, so that `layover --help` starts without what only `layover serve` needs.
"""
