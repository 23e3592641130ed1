"""The command ``compose``: reads flags, calls steps, prints results."""
