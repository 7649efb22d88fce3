"""The pages of the reference, made from typed signatures and docstrings when the site is built."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from docstring_parser import DocstringStyle, parse
from docstrings import markdown
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

import jiio_lightning
from jiio_lightning.attacks import Attack, ThreatModel
from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.cli import DEFAULTS
from jiio_lightning.commands.attack import attack
from jiio_lightning.commands.compare import compare
from jiio_lightning.commands.contenders import Contender
from jiio_lightning.commands.learn_start import learn_start
from jiio_lightning.commands.sample import sample
from jiio_lightning.core import InnerSolver, StepSizes, Sweeps
from jiio_lightning.core.operators import Operator
from jiio_lightning.core.outer import OuterGradient
from jiio_lightning.core.solvers import FixedPoint
from jiio_lightning.core.solvers.base import Method
from jiio_lightning.core.solvers.selection import Selection
from jiio_lightning.core.steps import Schedule, StepRule
from jiio_lightning.metrics.extractors import Extractor
from jiio_lightning.models import Classifier, ConditionalClassifier, CoordinateNet, Generator
from jiio_lightning.tasks import WarmStart

ROOT = Path(jiio_lightning.__file__).parent
CHOSEN = tuple(
    f"jiio_lightning.{room}"
    for room in ("core", "models", "tasks", "callbacks", "data", "attacks", "metrics", "commands.contenders")
)
FAMILIES: dict[str, tuple[type, ...]] = {
    "trainer": (Trainer,),
    "solver": (AugmentedDEQSolver,),
    "solver.train, solver.test": (InnerSolver,),
    "step": (StepRule,),
    "schedule": (Schedule,),
    "step_sizes, sweeps": (StepSizes, Sweeps),
    "forward, backward, refine, resolve, solver": (FixedPoint,),
    "method": (Method,),
    "selection": (Selection,),
    "jacobian": (JacobianRegularization,),
    "model": (LightningModule,),
    "model.net": (Generator, Classifier, ConditionalClassifier, CoordinateNet),
    "model.operator": (Operator,),
    "model.outer": (OuterGradient,),
    "model.warm": (WarmStart,),
    "model.own_attacks": (Attack, ThreatModel),
    "data": (LightningDataModule,),
    "trainer.callbacks": (Callback,),
    "features": (Extractor,),
    "solvers (jiio compare)": (Contender,),
}
"""Where a class stands in a run file, and what it is one of."""
HEAD = """\
# Run files

Every key, made from the signatures: what a class is called and what it takes. A class stands as

```yaml
step: {class_path: jiio_lightning.core.steps.SelfScaled, init_args: {forget: 0.7}}
```

and what can be of one class only (`trainer`, `solver`, `jacobian`, `step_sizes`, `sweeps`, `forward`) as its arguments alone.
`jiio fit --config FILE --print_config` shows the whole of a run.

## The run

| option | meaning |
|---|---|
| `--config` | a run file; a further one adds to it (mappings are merged, lists replaced) |
| `--name` | of the run; the stem of the first `--config` unless given |
| `seed_everything` | seed of everything that is random; 0 |
| `--ckpt_path` | weights: a file, `last`, `none`, or a monitored `best`; in `fit` the run that goes on |
| `--overwrite` | `fit`: replace the run that the folder holds |
| `--allow MODULE` | command line only: classes of this module may be named ([SECURITY.md](../SECURITY.md)) |
"""


def run_files() -> str:
    """Every option of every key of a run file."""
    lines = [HEAD]
    for key, bases in FAMILIES.items():
        lines += [f"## {key}", ""]
        for base in bases:
            for one in concrete(base):
                lines += _entry(one)
    return "\n".join(lines)


def commands() -> str:
    """The options that a command adds to those of the run file."""
    lines = ["# Commands", "", "What a command takes beside the [keys of a run file](run_files.md).", ""]
    for command in (compare, attack, sample, learn_start):
        lines += [f"## jiio {command.__name__}", "", *_entry(command)[2:]]
    return "\n".join(lines)


def room(name: str) -> str:
    """The page of a room: each of its files, in the order of the alphabet."""
    intro = inspect.getdoc(import_module(f"jiio_lightning.{name}")) or ""
    lines = [f"# {name}", "", markdown(intro), ""]
    for module in _modules(f"jiio_lightning.{name}"):
        lines += [f"::: {module}", "    options: {show_root_full_path: true, show_symbol_type_heading: false}", ""]
    return "\n".join(lines)


def concrete(base: type) -> list[type]:
    """The public classes of the package that can be made, ``base`` itself among them."""
    for module in _modules("jiio_lightning"):
        import_module(module)
    found = dict.fromkeys(_family(base))
    return [one for one in found if not inspect.isabstract(one) and not one.__name__.startswith("_") and _chosen(one)]


def _family(base: type) -> Iterator[type]:
    yield base
    for child in base.__subclasses__():
        yield from _family(child)


def _chosen(one: type) -> bool:
    """Whether a run file chooses it: what the command line adds by itself is of other rooms."""
    return one is Trainer or one.__module__.startswith(CHOSEN)


def _modules(package: str) -> list[str]:
    path = ROOT.joinpath(*package.split(".")[1:])
    found = pkgutil.walk_packages([str(path)], f"{package}.")
    return sorted(module.name for module in found if not module.ispkg and not module.name.endswith("__main__"))


def _entry(made: Callable[..., Any]) -> list[str]:
    """A heading, what it is, and its arguments."""
    told = parse(markdown(inspect.getdoc(made) or ""), DocstringStyle.GOOGLE)
    said = {name: text for one in reversed(_bases(made)) for name, text in _arguments(one).items()}
    lines = [f"### {made.__name__}", "", f"`{_path(made)}`. {told.short_description or ''}", ""]
    rows = [row for parameter in inspect.signature(made).parameters.values() if (row := _row(parameter, made, said))]
    return [*lines, "| option | type | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else lines


def _row(parameter: inspect.Parameter, made: Callable[..., Any], said: dict[str, str]) -> str:
    if parameter.name in ("trainer", "model", "datamodule") and inspect.isfunction(made):
        return ""
    default = DEFAULTS.get(f"trainer.{parameter.name}", parameter.default) if made is Trainer else parameter.default
    shown = "required" if default is inspect.Parameter.empty else f"`{_shown(default)}`"
    kind = parameter.annotation if isinstance(parameter.annotation, str) else inspect.formatannotation(parameter.annotation)
    kind = re.sub(r"\b(?:\w+\.)+", "", kind) if parameter.annotation is not inspect.Parameter.empty else "Any"
    meaning = " ".join(said.get(parameter.name, "").split())
    return f"| `{parameter.name}` | `{kind}` | {shown} | {meaning} |"


def _shown(default: Any) -> str:
    return default.__name__ if inspect.isclass(default) or inspect.isfunction(default) else repr(default)


def _bases(made: Callable[..., Any]) -> list[Any]:
    """Itself and the classes of the package that it is made of: those document what they take."""
    own = getattr(made, "__mro__", (made,))
    return [one for one in own if one is made or one.__module__.startswith("jiio_lightning.")]


def _arguments(one: Any) -> dict[str, str]:
    """What the docstrings of a class, of its ``__init__`` or of a function say of each argument."""
    texts = [one.__doc__, vars(one).get("__init__").__doc__ if "__init__" in getattr(one, "__dict__", {}) else None]
    parsed = [parse(markdown(inspect.cleandoc(text)), DocstringStyle.GOOGLE) for text in texts if text]
    return {param.arg_name: param.description or "" for told in parsed for param in told.params}


def _path(made: Callable[..., Any]) -> str:
    """The shortest name by which it can be imported."""
    parts = made.__module__.split(".")
    names = (".".join(parts[:count]) for count in range(2 if parts[0] == "jiio_lightning" else 1, len(parts) + 1))
    return next(f"{name}.{made.__name__}" for name in names if getattr(import_module(name), made.__name__, None) is made)
