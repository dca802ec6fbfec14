"""Stages that start in a moment, because a process that has imported the libraries forks for each.

Most of what a small stage takes is importing torch, transformers, diffusers and peft. Under a front
end the first stage starts a server, which imports them, of this package nothing, and forks a child
for each stage (`server`). The stage's own process hands over all that it was started with, and ends
as the child does (`client`). Results, texts, signals and exit codes are those of a stage that
imports for itself; where a process is anything that can't be handed over, it does.
"""

__computes__ = False  # it starts what computes
