"""Turn result records into what others see, and send it to the Hub.

In: result records, their prediction files, and tasks to build. Out: a model card (`model_card`), a leaderboard
(`leaderboard`), models and controls side by side (`overview`), a report folder (`report/`, whose plots `figures`
draws), a dataset folder shaped like its Hub repository (`dataset_folder`), the Hub's score files (`eval_results`), and
pushes (`uploads` plans them, `hub` sends them). `results` groups records by model and task; `publishable` holds the
rules of what may be published: add a new one there. Templates and fixed sentences are in ``model_cards/`` and
``dataset_scripts/``.
"""
