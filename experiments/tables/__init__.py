"""The tables and figures of the papers: what each runs and shows is data, a YAML file a table, which this module reads.

A file has these keys; a table without rows shows pictures only::

    title, setting, caveat: the text of the page.
    uses:      other files whose runs and names this one may use, the names as {FILE.NAME}.
    values:    names for the rest of the file.
    budgets:   {smoke: {...}, cpu: {...}, ...}: names that depend on the budget.
    runs:      - {name: table1/vae, command: test, config: ..., weights: generators/vae, overrides: {data.test_limit: 40}}
    columns:   - {column: ms, metric: test/seconds, scale: 1000, digits: 0}
    rows:      - {row: VAE, run: table1/vae}
    paper:     {VAE: {ms: 12.5}}: the paper's values, by row and column.
    pictures:  - {run: table1/vae, file: images/test.png, caption: ...}

``{name}`` stands for a value and ``{name.part}`` for a part of it; alone in a string it may be a list or a mapping. An entry of
a list may have

* ``for: {net: [vae, rae]}``: it is repeated, with ``{net}`` in its place; several names give all combinations, and an item of
  a mapping has its key as ``{net.name}``.
* ``only: [cpu, gpu]``: the budgets that it is part of. A cell whose run is not part of the budget stays, without a value.

A cell stands where a row and a column meet, unless its metric is null. A run's ``overrides`` are a mapping, or a list of mappings
that follow one another. ``weights`` names a run; with ``trials: {model.learning_rate: [1e-3, 1e-2]}`` there is a run for each
value, and the best by its ``curve`` is meant. With ``seeds: [0, 1, 2]`` there is a run for each seed, ``NAME_seed0`` and so on,
and one for each in every run that reads their weights: a cell is their mean, a picture is of the first. A cell's ``run`` may be a
list of names or a pattern too, such as ``fit/vae_*``: it is the mean over all of them. ``files: {place: run}`` gives a run a file
that another one has left.
``limits: {hours: 72}`` are what it may take of a cluster where that is not its budget's (shared/limits.yaml). The other
keys are those of :class:`~experiments.plan.Run`, ``Cell`` and ``Picture``.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from experiments.plan import Budget, Cell, Choice, File, Limits, Picture, Run, Table

FOLDER = Path(__file__).parent
NAME = re.compile(r"\{([a-zA-Z][\w.-]*)\}")
EVERYWHERE = {"for", "only"}
KEYS: dict[str, set[str]] = {
    "": {"title", "setting", "caveat", "uses", "values", "budgets", "runs", "columns", "rows", "paper", "pictures"},
    "runs": {"name", "command", "config", "overrides", "trials", "seeds", "weights", "files", "curve", "timed", "limits"}
    | EVERYWHERE,
    "columns": {"column", "run", "metric", "over", "scale", "digits", "trained", "better"} | EVERYWHERE,
    "rows": {"row", "run"} | EVERYWHERE,
    "pictures": {"run", "file", "caption"} | EVERYWHERE,
    "budgets": set(Budget),
}
Entry = dict[str, Any]
Words = tuple[str, ...]
Runs = dict[str, dict[str, Run | Choice]]
"""By name, then by what tells its seeds apart: ``_seed0``, or nothing. Empty where a run is not part of the budget."""


@dataclass(frozen=True)
class Scope:
    """The names that a file knows under a budget."""

    file: str
    budget: Budget
    names: Entry

    def find(self, path: str) -> Any:
        """The value of ``name.part.part``."""
        name, *parts = path.split(".")
        try:
            value = self.names[name]
            if isinstance(value, Scope):
                return value.find(".".join(parts))
            value = self.resolve(value)
            for part in parts:
                value = value[part]
        except (KeyError, TypeError):
            raise ValueError(f"{self.file}: there is no {{{path}}} under the budget {self.budget}") from None
        return value

    def resolve(self, value: Any) -> Any:
        """The value with all names replaced."""
        if isinstance(value, dict):
            return {self.resolve(key): self.resolve(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part) for part in value]
        if not isinstance(value, str):
            return value
        whole = NAME.fullmatch(value)
        return self.find(whole[1]) if whole else NAME.sub(lambda found: _text(self.find(found[1])), value)

    def each(self, entries: list[Entry]) -> Iterator[tuple[Entry, Scope]]:
        """Every entry of a list, repeated over its ``for``, with the names that hold there."""
        for entry in entries:
            loops = {name: _items(self.resolve(values)) for name, values in entry.get("for", {}).items()}
            for values in product(*loops.values()):
                yield entry, Scope(self.file, self.budget, self.names | dict(zip(loops, values, strict=True)))

    def here(self, entry: Entry) -> bool:
        """Whether an entry is part of the budget."""
        return self.budget in map(Budget, entry.get("only", Budget))

    def find_runs(self, name: str, runs: Runs) -> dict[str, Run | Choice]:
        """A run by its name, one for each seed."""
        if name not in runs:
            raise ValueError(f"{self.file}: there is no run {name}")
        return runs[name]

    def needed(self, name: str, runs: Runs) -> dict[str, Run | Choice]:
        """A run that another one needs."""
        if not (found := self.find_runs(name, runs)):
            raise ValueError(f"{self.file}: {name} is not part of the budget {self.budget}")
        return found

    def left(self, place: str, name: str, runs: Runs) -> File:
        """A file that a run, of the first seed, has left for others."""
        return File(place, next(iter(self.needed(name, runs).values())), Path(place).name)


def load(path: Path, budget: Budget) -> Table:
    """A table under a budget.

    Raises:
        ValueError: for a key, a name or a run that does not exist; it names the file.
    """
    raw, scope, runs = _read(path), *_definitions(path, budget)
    paper = scope.resolve(raw.get("paper", {}))
    columns = raw.get("columns", [])
    return Table(
        name=path.stem,
        **{part: scope.resolve(raw[part]).strip() for part in ("title", "setting", "caveat")},
        cells=tuple(
            cell
            for row, names in scope.each(raw.get("rows", []))
            if scope.here(row)
            for cell in _cells(row, columns, names, runs, paper)
        ),
        better=tuple((names.resolve(c["column"]), c["better"]) for c, names in scope.each(columns) if "better" in c),
        pictures=tuple(_pictures(raw.get("pictures", []), scope, runs)),
    )


TABLES: dict[str, Callable[[Budget], Table]] = {
    path.stem: partial(load, path)
    for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: (not path.stem.startswith("table"), path.stem))
}
"""Each table and figure, as a function of the budget."""


@cache
def _read(path: Path) -> Entry:
    """A file whose keys are all known."""
    raw = yaml.safe_load(path.read_text())
    lists = [(part, entry) for part in ("runs", "columns", "rows", "pictures") for entry in raw.get(part, [])]
    entries = [("", raw), ("budgets", raw.get("budgets", {})), *lists]
    for part, entry in entries:
        unknown = sorted(entry.keys() - KEYS[part])
        if unknown:
            raise ValueError(f"{path.name}: {part or 'a table'} has no key {unknown[0]!r}, only {', '.join(sorted(KEYS[part]))}")
    return raw


@cache
def _definitions(path: Path, budget: Budget) -> tuple[Scope, Runs]:
    """The names and the runs of a file and of those that it uses."""
    raw, runs = _read(path), {}
    names = {"budget": str(budget)} | raw.get("values", {}) | raw.get("budgets", {}).get(budget, {})
    for used in raw.get("uses", []):
        names[Path(used).name], more = _definitions(FOLDER / f"{used}.yaml", budget)
        runs |= more
    scope = Scope(path.name, budget, names)
    for entry, here in scope.each(raw.get("runs", [])):
        name = here.resolve(entry["name"])
        if name in runs:
            raise ValueError(f"{path.name}: two runs are called {name}")
        runs[name] = _seeds(here, here.resolve(entry), runs) if here.here(entry) else {}
        runs |= {f"{name}{seed}": {seed: run} for seed, run in runs[name].items() if seed}
    return scope, runs


def _seeds(scope: Scope, entry: Entry, runs: Runs) -> dict[str, Run | Choice]:
    """A run for each of its seeds, and for each of those whose weights it reads."""
    weights = scope.needed(entry["weights"], runs) if "weights" in entry else {"": None}
    seeds = {f"_seed{seed}": {"seed_everything": seed} for seed in entry["seeds"]} if "seeds" in entry else {"": {}}
    return {
        f"{of}{seed}": _run(scope, entry, f"{entry['name']}{of}{seed}", read, _words([chosen, entry.get("overrides", [])]), runs)
        for (of, read), (seed, chosen) in product(weights.items(), seeds.items())
    }


def _run(scope: Scope, entry: Entry, name: str, weights: Run | Choice | None, overrides: Words, runs: Runs) -> Run | Choice:
    """A run, or the best of several trials."""
    make = partial(
        Run,
        command=entry["command"],
        config=entry["config"],
        weights=weights,
        limits=Limits(**_read(FOLDER / "shared" / "limits.yaml")["budgets"][scope.budget] | entry.get("limits", {})),
        files=tuple(scope.left(place, run, runs) for place, run in entry.get("files", {}).items()),
        **{key: entry[key] for key in ("curve", "timed") if key in entry},
    )
    if "trials" not in entry:
        return make(name, overrides=overrides)
    ((option, values),) = entry["trials"].items()
    trials = [make(f"{name}_{value}", overrides=(*_words({option: value}), *overrides)) for value in values]
    return trials[0] if len(trials) == 1 else Choice(tuple(trials), trials[0].curve)


def _cells(row: Entry, columns: list[Entry], names: Scope, runs: Runs, paper: Entry) -> Iterator[Cell]:
    for column, here in names.each([column for column in columns if names.here(column)]):
        found = here.resolve(row | column)
        if found["metric"] is None:
            continue
        yield Cell(
            found["row"],
            found["column"],
            tuple(dict.fromkeys(run for name in _matching(found["run"], runs) for run in here.find_runs(name, runs).values())),
            found["metric"],
            paper.get(found["row"], {}).get(found["column"]),
            **{key: found[key] for key in ("over", "scale", "digits", "trained") if key in found},
        )


def _pictures(entries: list[Entry], scope: Scope, runs: Runs) -> Iterator[Picture]:
    for entry, here in scope.each(entries):
        found = here.resolve(entry)
        first = next(iter(here.find_runs(found["run"], runs).values()), None)
        if here.here(entry) and first is not None:
            yield Picture(first, found["file"], found["caption"])


def _matching(names: str | list[str], runs: Runs) -> list[str]:
    """The runs of a name or a pattern, or of several; what matches nothing stays, and will be missed."""
    return [run for name in ([names] if isinstance(names, str) else names) for run in fnmatch.filter(runs, name) or [name]]


def _words(overrides: Any) -> Words:
    """``{solver.test.max_steps: 40}`` as ``--solver.test.max_steps 40``."""
    if isinstance(overrides, list):
        return tuple(word for part in overrides for word in _words(part))
    return tuple(word for option, value in overrides.items() for word in (f"--{option}", _argument(value)))


def _argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _items(values: Any) -> list[Any]:
    """What a ``for`` goes over: a list, or a mapping whose items get their keys as ``name``."""
    return [{"name": name} | value for name, value in values.items()] if isinstance(values, dict) else values


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
