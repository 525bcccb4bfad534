"""Eight threads: JSON and compression of records, of which the compression runs without the GIL."""

import json
import threading
import zlib

from common import SCALE, nothing, report

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing
THREADS = 8


def record(number):
    return {
        "id": number,
        "name": f"record {number}",
        "tags": [f"tag{number % k}" for k in (3, 5, 7)],
        "values": [number * k / 7 for k in range(12)],
    }


def work(which, rounds, results):
    total = 0
    kept = {}
    for number in range(rounds):
        text = json.dumps([record(which * rounds + number + k) for k in range(8)]).encode()
        packed = zlib.compress(text, 1)
        kept[number % 50] = packed
        total += len(json.loads(zlib.decompress(packed))) + len(packed) % 7
    pause()
    results[which] = total


def main():
    rounds = round(900 * SCALE)
    results = [0] * THREADS
    threads = [
        threading.Thread(target=work, args=(which, rounds, results)) for which in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(results)


if __name__ == "__main__":
    report(main)
