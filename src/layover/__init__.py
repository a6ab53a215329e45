"""Layover: a self-hosted ephemeral container registry joined to remote image builds."""
