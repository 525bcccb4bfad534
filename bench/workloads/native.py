"""Native-heavy: small numpy arrays, zlib, re, lxml - many mallocs from C/C++/libxml2."""

import re
import zlib

import numpy as np
from common import SCALE, nothing, report
from lxml import etree

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing

WORD = re.compile(r"[A-Za-z]{3,}")


def xml_doc(n):
    return (
        "<root>"
        + "".join(
            f"<item id='{i}'><name>widget {i}</name><price cur='eur'>{i * 1.25}</price>"
            f"<desc>some longer text with words number {i}</desc></item>"
            for i in range(n)
        )
        + "</root>"
    ).encode()


def main():
    check = 0
    xml = xml_doc(4000)
    for _ in range(round(80 * SCALE)):
        root = etree.fromstring(xml)
        check += len(root.findall("item"))
        check += sum(len(p.text) for p in root.iter("price"))
        out = etree.tostring(root)
        pause()
        z = zlib.compress(out, 1)
        check += len(zlib.decompress(z))
        check += len(WORD.findall(out.decode()))
    rng = np.random.default_rng(1)
    for _ in range(round(150_000 * SCALE)):
        a = rng.random((16, 16))
        b = a @ a.T + a
        b = np.sqrt(b)
        c = np.concatenate([a[:8], b[8:]])
        check += c.shape[0] + len(np.unique(c[:, 0] > 0.5))
    big = [rng.random(200_000) for _ in range(10)]
    for i in range(round(60 * SCALE)):
        big[i % 10] = np.sort(big[i % 10] * 1.5 - 0.2)
    return check


if __name__ == "__main__":
    report(main)
