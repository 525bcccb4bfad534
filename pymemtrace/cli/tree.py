"""`pymemtrace tree`: the call stacks as a tree, with what each branch holds."""

import argparse
from collections.abc import Iterator
from typing import Any

from pymemtrace.cli import _captures, _format, _options, _rows
from pymemtrace.cli._page import Page

HELP = "show the call stacks as a tree, with what each branch holds"

DEFAULT_SHARE = 0.01
LIMITS_WIDTH = 13  # of an interval: "1,000.1-1,000.9" is wider, and rare


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("tree", help=HELP, description=HELP)
    _options.add_captures(parser)
    _options.add_views(parser)
    _options.add_filters(parser)
    _options.add_inverted(parser)
    _options.add_hide_interpreter(parser)
    _options.add_limit(parser, None, "branches below one frame")
    parser.add_argument(
        "--min-share", metavar="PERCENT", type=_options.parse_share, default=None,
        help="leave out branches with less of the bytes (default: 1, with --json 0)",
    )  # fmt: skip
    parser.add_argument(
        "--depth", metavar="N", type=_options.parse_limit, default=0,
        help="show at most N frames below the root (default: all)",
    )  # fmt: skip
    _options.add_merge(parser, "the stacks of all processes in one tree")
    _options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    query = _options.Query.of(args)

    def make(opened: _captures.Report, default_share: float, depth: int) -> dict[str, Any]:
        share = default_share if args.min_share is None else args.min_share
        aggregate = query.aggregate(opened.reader, opened.info)
        root = aggregate.tree(inverted=args.inverted, max_depth=depth, min_share=share)
        if args.limit is not None:
            limit_children(root, args.limit)
        return root

    def collect(opened: _captures.Report) -> dict[str, Any]:
        return {
            "view": query.view,
            "inverted": args.inverted,
            "root": make(opened, 0.0, args.depth),
        }

    def show(page: Page, opened: _captures.Report) -> None:
        # The first line of an inverted branch is what allocates, whoever it is.
        hides = not args.inverted
        root = make(opened, DEFAULT_SHARE, 0 if hides else args.depth)
        hidden = hide_machinery(root, args.depth) if hides else 0
        opened.paths.learn({node["site"]["file"] for node in walk(root)})
        page.title(opened.heading)
        notes = _rows.few_samples(root.get("samples"))
        page.notes([*opened.notes(query.view), *notes, *query.describe()])
        order = "callers below callees" if args.inverted else "callees below callers"
        page.heading(f"Bytes {_options.VIEW_TITLES[query.view]}, {order}")
        show_tree(page, root, opened.paths)
        if hidden:
            frames = f"{_format.count(hidden)} frames of the import system"
            text = f"{frames} are left out (--json has them)."
            page.line([(text, "dim")])
        share = DEFAULT_SHARE if args.min_share is None else args.min_share
        if share > 0:
            text = f"Branches with less than {_format.share(share)} are left out (--min-share)."
            page.line([(text, "dim")])

    return _captures.report(args, collect, show)


def walk(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node["children"]


def limit_children(root: dict[str, Any], limit: int) -> None:
    for node in walk(root):
        del node["children"][limit:]


def hide_machinery(root: dict[str, Any], depth: int) -> int:
    """Takes the frames of the import system that call something out of the tree: what they call
    stands in their place, the heaviest first. Then leaves `depth` levels below the root (0: all).
    Returns how many frames there were."""
    hidden = 0
    waiting = [(root, 0)]
    while waiting:
        node, level = waiting.pop()
        if depth and level == depth:
            node["children"] = []
        kept, children = [], list(node["children"])
        while children:
            child = children.pop()
            if child["children"] and _rows.is_machinery(child["site"]):
                hidden += 1
                children += child["children"]
            else:
                kept.append(child)
        node["children"] = sorted(kept, key=lambda child: -child["bytes"])
        waiting += [(child, level + 1) for child in kept]
    return hidden


def show_tree(page: Page, root: dict[str, Any], paths: _format.Paths) -> None:
    """One line per node. An only child stands below its parent at the same depth: the guides show
    where stacks part, and a deep stack stays on the screen."""
    waiting = [(root, "", "")]  # node, guide of its own line, guide of the lines below
    limits = "bytes_low" in root
    while waiting:
        node, guide, below = waiting.pop()
        place = paths.place(node["site"])
        page.line(
            [
                (f"{_format.size(node['bytes']):>10}", "bold"),
                (f"  {_format.size_limits(node, 'bytes'):>{LIMITS_WIDTH}}" if limits else "", ""),
                (f"  {_format.share(node['share']):>7}  ", ""),
                (guide, "dim"),
                (_format.clean(node["site"]["function"]), ""),
                (f"  {place}" if place else "", "cyan"),
            ]
        )
        children = node["children"]
        if len(children) == 1:
            waiting.append((children[0], below, below))
            continue
        for number, child in enumerate(reversed(children)):
            last = number == 0
            waiting.append(
                (child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
            )
