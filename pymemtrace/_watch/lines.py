"""Where in a TOML text a key is: tomllib does not tell.

The text has been parsed already, so this need not judge it; it only has to know what is a header,
a key, or within a text or an array of several lines. Where it does not know, it names the nearest
line before.
"""

import re

# A header with brackets in its names, or a key in quotes, is found as far as it goes.
HEADER = re.compile(r"\s*(\[\[?)\s*([^\]#]*?)\s*\]\]?")
KEY = re.compile(r"""\s*([A-Za-z0-9_\-."' ]+?)\s*=""")
STRINGS = re.compile(r"'''|\"\"\"|'[^']*'|\"(?:[^\"\\]|\\.)*\"|#.*|[\[\]{}]")


class Lines:
    """Tables by path, "rules.0" for the first of [[rules]], and the keys in them."""

    def __init__(self, text: str) -> None:
        self._tables: dict[str, int] = {"": 1}
        self._keys: dict[tuple[str, str], int] = {}
        counts: dict[str, int] = {}
        table, depth, end = "", 0, ""
        for number, line in enumerate(text.split("\n"), 1):
            if end:  # within a text of several lines
                if end not in line:
                    continue
                line = line.partition(end)[2]
                end = ""
            elif depth == 0:
                header, key = HEADER.match(line), KEY.match(line)
                if header is not None and key is None:
                    table = _clean(header[2])
                    if header[1] == "[[":
                        at = counts.get(table, 0)
                        counts[table] = at + 1
                        table = f"{table}.{at}"
                    self._tables.setdefault(table, number)
                    continue
                if key is not None:
                    name = _clean(key[1])
                    self._keys.setdefault((table, name), number)
                    for dot in range(name.count(".")):  # a.b = 1 is a table a
                        first = ".".join(name.split(".")[: dot + 1])
                        self._keys.setdefault((table, first), number)
            for match in STRINGS.finditer(line):
                word = match[0]
                if word in ("'''", '"""'):
                    rest = line[match.end() :]
                    if word not in rest:
                        end = word
                    break
                depth = max(0, depth + (word in "[{") - (word in "]}"))

    def of(self, table: str, key: str = "") -> int:
        """1 if nothing like it is known."""
        if (table, key) in self._keys:
            return self._keys[table, key]
        if table in self._tables:
            return self._tables[table]
        above, _, last = table.rpartition(".")
        if (above, last) in self._keys:
            return self._keys[above, last]
        return self.of(above) if above else self._keys.get(("", table), 1)


def _clean(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
