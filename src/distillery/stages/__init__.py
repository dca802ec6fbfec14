"""One thin module per pipeline stage; run with `python -m distillery.stages.<verb>`."""
