"""Commands of ``bend-hf`` as jobs of a cluster: what runs, on how many workers, in which order, and how far it is.

In: a command and its flags, and a ``SubmitConfig``. Out: jobs, and a folder that holds their scripts, logs and exit
states. ``config`` declares the flags, ``plan`` cuts a command into stages of identical workers, ``slurm`` submits them
through submitit, ``hub`` as Hugging Face Jobs, and ``status`` reads the folder. Scheduling is left to these engines.
"""
