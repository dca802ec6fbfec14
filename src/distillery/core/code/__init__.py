"""What a stage's code is: the definitions that its computation can reach, as a hash.

In: the source files of this package. Out: one hash a definition and one a stage. Nothing is
imported or run, so front ends and stages ask without torch. Comments, docstrings, messages,
annotations and formatting are not code; a module that says `__computes__ = False` (texts, logs,
params) is left out.
"""
