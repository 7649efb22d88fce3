"""One line for what a user did, out of the paragraphs that libraries say."""

from __future__ import annotations

import re
import shlex
import sys
from typing import NoReturn, TextIO

import yaml
from jsonargparse import ArgumentParser

NOISE = re.compile(
    r"Expected a path but |Does not validate against any of|Subtypes: |Errors:|Given value|Expected a <class 'NoneType'>|"
    r"Problem with given class_path|Parser key |Unable to load config '|tip: "
)
"""How lines of jsonargparse begin that do not say what is wrong: it lists every type that it tried."""

USERS = re.compile(r"Early stopping conditioned on metric|returned nan values in its|out of memory|is encrypted")
"""What RuntimeErrors say that are a user's doing."""

LOST = re.compile(r"gloo/transport|NCCL|TCPStore|Broken pipe")
"""What RuntimeErrors say where one process of a run waits for another that has ended."""


class BriefParser(ArgumentParser):
    """Says what is wrong with a command in a line; the hundreds of options are for ``--help``."""

    def print_usage(self, file: TextIO | None = None) -> None:
        """Nothing: jsonargparse prints all options above each error."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(short(message) if self.exit_on_error else message, ex)


def expected(error: Exception) -> bool:
    """Whether an error of a library is something that a user did, or met, and not a fault of the program."""
    kinds = OSError | ValueError | yaml.YAMLError
    users = isinstance(error, RuntimeError) and USERS.search(str(error)) is not None
    return isinstance(error, kinds) or _misconfigured(error) or users


def _misconfigured(error: Exception) -> bool:
    from pytorch_lightning.utilities.exceptions import MisconfigurationException  # here: some commands start without it

    return isinstance(error, MisconfigurationException)


def lost(error: Exception) -> bool:
    """Whether an error only says that another process of the run has ended."""
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None


def advised(error: Exception) -> str:
    """The message of an error, with what to do about the few that do not say so themselves."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = short(str(error))
    if _misconfigured(error) and "gpu" in message.lower():
        import torch

        count = torch.cuda.device_count()
        message += f" This machine has {count} GPUs: choose trainer.accelerator and trainer.devices to match (conf/trainer/)."
    return message


def short(message: str) -> str:
    """What is wrong as one line: the option's path and the reason."""
    if "No module named 'experiments" in message:
        command = shlex.join(["python", "-m", "experiments", *sys.argv[1:]])
        return f"this is a run of a baseline, which is no part of the package: type `{command}` in the root of the checkout"
    keys = list(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
    owners = re.findall(r"given class_path '([^']+)'", message)
    if forbidden := re.search(r"Importing '([^']+)' is not allowed", message):
        module = forbidden[1].rpartition(".")[0]
        reason = f"{forbidden[1]} is code that a run file may not name: if you trust it, add --allow {module}"
    elif (unknown := re.findall(r"Option '([^']+)' is not accepted", message)) and owners:
        keys.append(unknown[-1])
        reason = f"{owners[-1]} has no option '{unknown[-1]}'"
    else:
        reason = _reason(message)
    # an inner key may have the outer one in it
    path = ".".join(key for key, inner in zip(keys, [*keys[1:], ""], strict=False) if not inner.startswith(f"{key}."))
    return reason if not keys or reason.startswith(path) else f"{path}: {reason}"


def _reason(message: str) -> str:
    """The lines of a message that say something, without what only a program could use."""
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    lines = [re.sub(r"^Parser key \"[^\"]+\": ", "", line) for line in lines]
    said = list(dict.fromkeys(line for line in lines if line and not NOISE.match(line))) or lines
    text = "; or ".join(said) if "Union subtypes" in message else " ".join(said)
    text = re.sub(r'Unable to load config "(.*?)"', r"\1 is neither settings nor a file of them", text)
    text = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class \1", text)
    text = re.sub(r"Not of type \w+: |^Configuration check failed :: ", "", text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    value = re.search(r"Given value: (?!NestedArg|Namespace)(.{1,40})$", message, re.M)
    if value and value[1] not in text:
        text += f", got {value[1]}"
    return re.sub(r" at 0x[0-9a-f]+", "", text)
