"""Organizations, users, projects, tokens, and who may do what."""
