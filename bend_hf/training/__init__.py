"""Training: from token embeddings to a trained head and its predictions.

In: the splits of a task with their embeddings. Out: weights of the best epoch, and predictions. ``trainer`` is the
loop of steps that heads and pretraining share, ``head_trainer`` the training of a head, ``batches`` its
input, ``losses``, ``schedules`` and ``checkpoints`` its parts, ``predict`` the predictions. ``stacked`` trains
several heads together from one read. ``finetuning`` trains the embedder too; ``launch`` and ``sharding`` handle several
processes. Heads are in ``heads``, language models in ``pretraining``.
"""
