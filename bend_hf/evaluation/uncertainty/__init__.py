"""How sure a score is: intervals by bootstrap and DeLong, and paired comparisons of models on the same items.

Of MCC, AUROC and AUPRC, by which BEND's tasks are scored. ``pearsonr`` and ``spearmanr`` stand in ``metrics/`` for
labels of the user's own, and no task or record holds them, so that there is nothing here to resample for them.

>>> from bend_hf.evaluation.uncertainty.comparison import holm
>>> holm([0.01, 0.04, 0.03])
[0.03, 0.06, 0.06]
"""
