"""The API and the registry over HTTP: what the command line and Python users call.

`api` speaks to a server, `choices` finds which one, `engine` pulls into Docker and `buildkit`
follows a build's steps on a builder. Nothing here draws: progress is told as values.
"""
