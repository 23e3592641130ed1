"""What makes this package's models base models of ``compose``: a family and a task, by entry points.

Only this folder imports ``composer``; whoever trains and translates needs none of it.
"""
