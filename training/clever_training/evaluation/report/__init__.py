"""One page that compares several measured models, from their evaluation.json files.

``collect`` reads the files, ``tables`` and ``figures`` present the figures, ``claims`` compares the
parts, ``tsne`` maps features of photos, ``page`` composes the page, and ``document`` writes it as
Markdown and as self-contained HTML.
"""
