"""What makes this package's models base models of ``compose``: a family and a task, by entry points.

Only this folder imports ``composer``, and only its door for other packages, ``composer.plugin``; whoever trains and
translates needs none of it.
"""
