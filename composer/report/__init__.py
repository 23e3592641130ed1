"""The records of a comparison, and what shows them: the ledger of all work, tables, pictures, one self-contained page.

Take :func:`plots.plot`, :func:`graph.draw` and :func:`page.write_report` from their modules; the page imports
matplotlib only when it draws.
"""
