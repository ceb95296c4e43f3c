"""Makes the documentation site: `python -m docs.generator` (`make docs`).

The pages in `docs/` are Markdown that also reads well in a code browser. What can be derived from the code is generated into a copy of
them: recipe keys, the command line, the API, excerpts of the source beside equations, notebooks. Zensical then renders the copy.
"""
