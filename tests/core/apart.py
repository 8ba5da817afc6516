"""One rank of several: `python -m tests.core.apart BYTE`, whose digest has only this byte."""

from __future__ import annotations

import sys

import torch

from core.group import Group

group = Group()
group.connect(torch.device("cpu"), 60, 60)
group.compare(sys.argv[1] * 32, 500)
