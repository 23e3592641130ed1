"""The command ``compose``: commands read flags, call the library and hand its results to the console."""
