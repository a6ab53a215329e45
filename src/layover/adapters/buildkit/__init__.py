"""BuildKit daemons: those of the settings, and the one that the server starts itself."""
