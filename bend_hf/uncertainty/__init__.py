"""How sure a score is: intervals by bootstrap and DeLong, and paired comparisons of models on the same items.

>>> from bend_hf.uncertainty.comparison import holm
>>> holm([0.01, 0.04, 0.03])
[0.03, 0.06, 0.06]
"""
