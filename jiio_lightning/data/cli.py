"""``jiio data``: prepare, verify and list data sets, and measure their loaders."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from jiio_lightning.data.bench import compare
from jiio_lightning.data.celeba import CelebARecipe
from jiio_lightning.data.cifar10 import CIFAR10Recipe
from jiio_lightning.data.digits import DigitsRecipe
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.ffhq import FFHQRecipe
from jiio_lightning.data.images import ImagesRecipe
from jiio_lightning.data.mnist import MNISTRecipe
from jiio_lightning.data.module import data_root
from jiio_lightning.data.omniglot import OmniglotRecipe
from jiio_lightning.data.prepared import MANIFEST, Manifest, Prepared
from jiio_lightning.data.recipe import Recipe
from jiio_lightning.data.writer import prepare

RECIPES: dict[str, type[Recipe]] = {
    recipe.title: recipe
    for recipe in (DigitsRecipe, MNISTRecipe, CIFAR10Recipe, OmniglotRecipe, CelebARecipe, FFHQRecipe, ImagesRecipe)
}


def main(args: list[str] | None = None) -> int:
    """Run ``jiio data ARGS``; returns the exit status."""
    parser = build_parser()
    config = parser.parse_args(args)
    commands = {"prepare": run_prepare, "verify": run_verify, "list": run_list, "bench": run_bench}
    try:
        return commands[config.command](config[config.command])
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left", file=sys.stderr)
        return 130


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="jiio data", description="Prepare, verify and list data sets.")
    commands = parser.add_subcommands(dest="command")
    sets = ArgumentParser(description="Write the memory-mapped arrays of a data set, once.")
    commands.add_subcommand("prepare", sets, help="write the memory-mapped arrays of a data set")
    _add_sets(sets)
    commands.add_subcommand("verify", _verify_parser(), help="compare prepared sets with their checksums")
    commands.add_subcommand("list", _list_parser(), help="show which sets there are and which are prepared")
    commands.add_subcommand("bench", _bench_parser(), help="measure the training loader of a set of images")
    return parser


def run_prepare(config: Namespace) -> int:
    options = config[config.set]
    source, root = options.pop("source"), data_root(options.pop("root"))
    recipe = RECIPES[config.set](**vars(options))
    there = (root / recipe.name).exists()
    prepared = prepare(recipe, Path(source).expanduser() if source else None, root)
    print(f"{prepared.folder}: {'was prepared already, ' if there else ''}{_contents(prepared.manifest)}")
    return 0


def run_verify(config: Namespace) -> int:
    failures = [error for folder in _prepared_folders(config) if (error := _verify(folder)) is not None]
    for error in failures:
        print(f"error: {error}", file=sys.stderr)
    return 1 if failures else 0


def run_list(config: Namespace) -> int:
    root, folders = data_root(config.root), _prepared_folders(config)
    print(f"prepared in {root.resolve()}:" if folders else f"nothing is prepared in {root.resolve()}")
    for folder in folders:
        print(f"  {folder.name:20} {_contents(Manifest.load(folder))}")
    print("can be prepared:")
    for title, recipe in RECIPES.items():
        print(f"  {title:20} {recipe.where or 'Needs no source.'}")
    return 0


def run_bench(config: Namespace) -> int:
    print(compare(_open(_prepared_folders(config)[0]), config.batch_size, config.epochs))
    return 0


def _add_sets(parser: ArgumentParser) -> None:
    """One subcommand for each recipe; its fields are the options."""
    sets = parser.add_subcommands(dest="set", metavar="NAME")
    for title, recipe in RECIPES.items():
        one = ArgumentParser(description=recipe.__doc__)
        one.add_class_arguments(recipe, as_group=False)
        one.add_argument("--source", type=str | None, default=None, help=f"the originals. {recipe.where}")
        _add_root(one)
        sets.add_subcommand(title, one)


def _verify_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Compare every byte of prepared sets with their manifests.")
    parser.add_argument("name", nargs="?", type=str | None, default=None, help="one set, as 'list' names it; default: all")
    _add_root(parser)
    return parser


def _list_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Show which sets are prepared and which could be.")
    _add_root(parser)
    return parser


def _bench_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Measure the training loader against decoding images and copying memory.")
    parser.add_argument("name", type=str, help="a prepared set of images, as 'list' names it")
    parser.add_argument("--batch_size", type=int, default=48, help="images in a batch")
    parser.add_argument("--epochs", type=int, default=3, help="epochs to measure; the fastest counts")
    _add_root(parser)
    return parser


def _add_root(parser: ArgumentParser) -> None:
    parser.add_argument("--root", type=str | None, default=None, help="folder of prepared sets; default JIIO_DATA or data")


def _prepared_folders(config: Namespace) -> list[Path]:
    """The prepared sets under the root, or the one that is named."""
    root, name = data_root(config.root), config.get("name")
    folders = sorted(path.parent for path in root.glob(f"[!.]*/{MANIFEST}"))
    named = [folder for folder in folders if name in (None, folder.name)]
    if name is not None and not named:
        raise DataError(f"no set called {name} is prepared in {root.resolve()}: 'jiio data list' shows what there is.")
    return named


def _open(folder: Path) -> Prepared:
    return Prepared(folder, Manifest.load(folder))


def _verify(folder: Path) -> DataError | None:
    try:
        _open(folder).verify()
    except DataError as error:
        return error
    print(f"{folder}: as it was prepared")
    return None


def _contents(manifest: Manifest) -> str:
    splits = ", ".join(f"{count} {split}" for split, count in manifest.splits.items() if count)
    form, path = manifest.source["form"], manifest.source.get("path", "")
    return f"{'x'.join(map(str, manifest.shape))}: {splits}; from {form} {path}{'' if manifest.strict else ' (not strict)'}"
