"""One line for what a user did, of the paragraphs that libraries say."""

from __future__ import annotations

import re
import shlex
import sys

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

def short(message: str) -> str:
    """An unknown option, or a number out of its range, as one line with its path; jsonargparse shows every type that it tried."""
    if "No module named 'experiments" in message:
        command = shlex.join(["python", "-m", "experiments", *sys.argv[1:]])
        return f"this is a run of a baseline, which is no part of the package: type `{command}` in the root of the checkout"
    option = re.findall(r"Option '([^']+)' is not accepted", message)
    keys, owners = re.findall(r'Parser key "([^"]+)"', message), re.findall(r"given class_path '([^']+)'", message)
    ranges = re.findall(r"Not of type \w+: (.+)", message)
    if len(ranges) == 1 and keys:
        return f"{'.'.join(keys)}: {ranges[0]}"
    if not option or not keys or not owners:
        return message
    return f"{'.'.join(keys)}.{option[-1]}: {owners[-1]} has no option '{option[-1]}'"


def advised(error: Exception) -> str:
    """The message of an error, with what to do about the few that do not say so themselves."""
    message = " ".join(str(error).split())
    if isinstance(error, MisconfigurationException) and "gpu" in message.lower():
        count = torch.cuda.device_count()
        message += f" This machine has {count} GPUs: choose trainer.accelerator and trainer.devices to match (conf/trainer/)."
    return message
