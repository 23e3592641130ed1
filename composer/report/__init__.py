"""Pictures and the page: curves of losses, the scheme's graph, and one self-contained ``report.html``.

Take :func:`plots.plot`, :func:`graph.draw` and :func:`page.write_report` from their modules; only the
first two import matplotlib, the page imports it when it draws.
"""
