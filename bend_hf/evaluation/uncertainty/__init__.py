"""How certain a score is: intervals, and paired comparisons of models on the same items.

In: ``Predictions``. Out: ``Interval`` and ``Comparison``. ``bootstrap.py`` draws resamples and computes intervals of
MCC, AUROC and AUPRC, ``clusters.py`` says what is drawn together, ``fast_metrics.py`` computes the metrics of many
resamples at once, ``delong.py`` is the exact method for AUROC, and ``comparison.py`` compares models. To resample
another metric, add its counts to ``fast_metrics.py`` and its name to ``bootstrap.METRICS``.
"""
