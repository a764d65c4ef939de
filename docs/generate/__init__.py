"""Everything made while the site is built: pages from the code and the result files, and typeset formulas.

Only `hook.py` knows MkDocs; the other files have functions that return Markdown or HTML, which tests can call.
"""
