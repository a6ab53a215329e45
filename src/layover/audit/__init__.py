"""The audit log: who did what, to what, from where, and how it ended."""
