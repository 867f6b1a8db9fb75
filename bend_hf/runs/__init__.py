"""Runs: one model on one task becomes one result record and one file of predictions.

In: a ``RunConfig`` (the flags of ``bend-hf train``). Out: ``Outcome`` objects, whose records lie in ``--out``. Start at
``run.py``, which follows a run from its flags to its record. ``settings.py`` says what a configuration means for a
task, ``checks.py`` and ``flag_effects.py`` refuse what does not fit. ``train_head.py`` and ``score_variants.py``
compute the two kinds of tasks, ``outcome.py`` builds the record, and ``verify.py`` checks one later: its scores, items
and settings, and through ``recomputed.py`` all else that it says. ``grid.py`` and ``demo.py`` loop over runs,
``processes.py`` has several of them computed at once, ``variant_file.py`` scores a file of variants, ``embed.py`` fills
the embedding cache, ``forecast.py`` serves ``--dry-run``, and ``leftovers.py`` finds what interrupted processes left.
``cluster/`` submits commands as jobs of Slurm or of Hugging Face. To add a control, add a file to ``controls/``.
"""
