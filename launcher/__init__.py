"""The operator's side of runtest: reads the nodes file, plans, starts agents, gathers, reports."""

__version__ = "0.1.0"
