"""``jiio data``: prepare, verify and list data sets."""

import sys
from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import PositiveFloat

from jiio_lightning.data.catalogue import MANIFEST, WHERE, Manifest, data_root
from jiio_lightning.data.errors import DataError, printable
from jiio_lightning.messages import BriefParser

STRICT = """refuse anything but the original: other checksums, another number of images. With false a part of the set, or one
of your own in the same layout, can be prepared too; the manifest says so."""


def main(args: list[str]) -> int:
    """Run ``jiio data ARGS``; returns the exit status."""
    config = build_parser(args).parse_args(args)
    commands = {"prepare": run_prepare, "verify": run_verify, "list": run_list}
    try:
        return commands[config.command](config[config.command])
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left", file=sys.stderr)
        return 130


def build_parser(args: list[str]) -> BriefParser:
    parser = BriefParser(prog="jiio data", description="Prepare, verify and list data sets.")
    commands = parser.add_subcommands(dest="command")
    prepare = BriefParser(description="Write the memory-mapped arrays of a data set, once.")
    commands.add_subcommand("prepare", prepare, help="write the memory-mapped arrays of a data set")
    if "prepare" in args:  # the classes of all sets bring torch along
        _add_sets(prepare)
    verify = BriefParser(description="Compare every byte of prepared sets with their manifests.")
    verify.add_argument("name", nargs="?", type=str | None, default=None, help="one set, as 'list' names it; default: all")
    commands.add_subcommand("verify", verify, help="compare prepared sets with their checksums")
    list_ = BriefParser(description="Show which sets are prepared and which could be.")
    commands.add_subcommand("list", list_, help="show which sets there are and which are prepared")
    for one in (verify, list_):
        _add_root(one)
    return parser


def _add_sets(parser: BriefParser) -> None:
    """One subcommand for each set, with the options that change what is written."""
    from jiio_lightning.data.sets import SETS

    sets = parser.add_subcommands(dest="set", metavar="NAME")
    for title, data in SETS.items():
        one = BriefParser(description=data.__doc__.partition("Args:")[0])
        one.add_class_arguments(data, as_group=False, skip=set(data.__dataclass_fields__) - set(data.options))
        one.add_argument("--strict", type=bool, default=True, help=STRICT)
        for name, value, what in (
            ("max_gb", data.limits.gigabytes, "gigabytes that an archive, or a compressed file, may unpack to"),
            ("max_megapixels", data.limits.megapixels, "millions of pixels of an image"),
        ):
            one.add_argument(f"--{name}", type=PositiveFloat, default=value, help=what)
        one.add_argument("--source", type=str | None, default=None, help=f"the originals. {data.where}")
        _add_root(one)
        sets.add_subcommand(title, one)


def _add_root(parser: BriefParser) -> None:
    parser.add_argument("--root", type=str | None, default=None, help="folder of prepared sets; default JIIO_DATA or data")


def run_prepare(config: Namespace) -> int:
    from jiio_lightning.data.originals import Limits
    from jiio_lightning.data.prepared import prepare
    from jiio_lightning.data.sets import SETS

    options = vars(config[config.set])
    strict, source, root = options.pop("strict"), options.pop("source"), data_root(options.pop("root"))
    limits = Limits(options.pop("max_gb"), options.pop("max_megapixels"))
    data = SETS[config.set](**options)
    there = (root / data.name).exists()
    prepared = prepare(data, Path(source).expanduser() if source else None, root, strict, limits)
    print(f"{printable(str(prepared.folder))}: {'was prepared already, ' if there else ''}{prepared.manifest.summary}")
    return 0


def run_verify(config: Namespace) -> int:
    # all of them, also after one that is damaged
    return max([_verify(folder) for folder in _prepared_folders(config.root, config.name)], default=0)


def run_list(config: Namespace) -> int:
    root, folders = data_root(config.root), _prepared_folders(config.root)
    print(f"prepared in {root.resolve()}:" if folders else f"nothing is prepared in {root.resolve()}")
    for folder in folders:
        print(f"  {folder.name:20} {Manifest.load(folder).summary}")
    print("can be prepared:")
    for title, where in WHERE.items():
        print(f"  {title:20} {where or 'Needs no source.'}")
    return 0


def _prepared_folders(root: str | None, name: str | None = None) -> list[Path]:
    """The prepared sets under the root, or the one that is named."""
    # a hidden folder is one that is being written
    folders = sorted(path.parent for path in data_root(root).glob(f"[!.]*/{MANIFEST}"))
    named = [folder for folder in folders if name in (None, folder.name)]
    if name is not None and not named:
        where = data_root(root).resolve()
        raise DataError(f"no set called {name} is prepared in {where}: 'jiio data list' shows what there is.")
    return named


def _verify(folder: Path) -> int:
    from jiio_lightning.data.prepared import Prepared

    try:
        Prepared(folder, Manifest.load(folder)).verify()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{printable(str(folder))}: as it was prepared")
    return 0
