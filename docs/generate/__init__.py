"""What is made while the site is built: pages from the code and from the files of results, and typeset formulas.

`hook.py` alone knows MkDocs; every other file has functions that return Markdown or HTML, which tests call without it.
"""
