"""What the registry has to show, written down once more without a database, and the test that
does everything in any order to the real one and compares."""
