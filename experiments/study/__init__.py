"""Numbered studies: a question, a grid of configurations, one command, ``results.json`` and a verdict.

``python -m experiments.study run 01`` trains and measures what is missing of a study, ``render`` writes its README from
what was found, and ``list`` says where all of them stand.
"""
