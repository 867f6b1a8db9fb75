"""Data: from BED, genome and labels to datasets.

In go the files of a task (``sources`` finds them, ``published_files`` downloads them); out come the splits of a task as
``datasets.Dataset``, with the facts that a result record keeps (``dataset.open_task``). ``bed``, ``vcf`` and ``labels``
read tables, ``genome``, ``fasta`` and ``fasta_index`` read sequences, ``examples`` checks them against each other, and
``builder`` builds the dataset. ``user_task`` infers a task from files without a declaration. To add an input format,
add a reader that returns a ``BedTable``, and call it in ``examples.read_examples``.
"""
