"""One page that sets several measured models side by side, from their evaluation.json files.

``collect`` reads the files, ``tables`` and ``figures`` draw what they say, ``claims`` compares the
parts, ``tsne`` maps features of photos, ``page`` puts it all on one page, which ``document`` writes
as Markdown and as self-contained HTML.
"""
