"""Pushes of saved builds to other registries.

A push is a job with a life of its own: it outlives the client that asked for it and the server
that began it. `service` takes and shows pushes, `runner` decides which of them this server works
on, `transfer` does one, and `plan` says what of a build goes.
"""
