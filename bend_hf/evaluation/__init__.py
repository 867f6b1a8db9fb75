"""Evaluation: predictions become scores, intervals and result records.

In: predictions of a head, a control or a variant score (``predictions.py``). Out: the scores of metrics
(``metrics.py``), their uncertainty (``uncertainty/``) and the record of a run (``record.py``, its version in
``record_schema.py``). ``run_key.py`` computes the hash that finds a run again. A new metric is a folder in ``metrics/``
at the top of the repository.
"""
