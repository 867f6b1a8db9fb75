"""Feed the readers of files that others wrote with broken files; ``make fuzz`` runs all of it.

``targets`` names the readers and gives each a few whole files to start from, ``__main__`` mutates them. What once broke
a reader is kept in ``found/TARGET/`` and read again by ``tests/properties/test_fuzz_cases.py``.
"""
