"""Running buildx on a builder that the server chose.

`arguments` reads a command line as buildx would, `outputs` and `bakefile` say where a saved
build goes, `workspace` makes the private folder that buildx is configured from, `process` runs
it, `builders` and `reporting` are the build's side on the server, and `session` is one build
from its creation to its end.
"""
