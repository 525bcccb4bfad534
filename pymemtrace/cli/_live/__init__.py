"""The viewer of `pymemtrace live` and `run --live`.

    watch.py      the captures that are watched, and what the screen shows of them; no terminal here
    worker.py     a thread that asks watch.py, not too often
    listing.py    a widget: rows under column titles, with a cursor
    head.py       the lines above it
    app.py        the screen, its keys, its state

Only listing.py, head.py and app.py import textual.
"""
