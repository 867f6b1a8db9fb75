"""Audit a task: what its test rows share with its training rows, and what a rule without a model can predict.

In: the splits of a task. Out: a ``TaskAudit`` with one entry per row and a summary, as JSON and as text
(``task_audit.py``, start there). ``rows.py`` reads the splits, ``kmers.py`` enumerates k-mers in bounded memory,
``copies.py`` finds copies and near copies, ``places.py`` compares coordinates, ``rules.py`` fits rules of one feature,
``pretraining.py`` compares test rows with what a model was pretrained on, and ``leak_free.py`` scores stored
predictions without the leaks.
"""
