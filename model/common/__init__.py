"""What several commands share.

A command imports from here and from ``closedloop``, and never from another command; ``retrain`` alone runs others, one
after the other. Nothing here runs by itself.

============================================  ====================================================================
``cli``                                       flags, paths below ``build/``, progress, exit codes
``params``, ``time_scaling``                  ``params.yaml``, read and checked; its lengths of time, scaled
``slips``, ``param_rules``                    what is wrong in it, before any work; what each value may be
``estimators``, ``feature_names``             the parameters that an estimator has; the names of the features
``yaml_lines``                                YAML with the line of each key
``proposed_params``, ``examine``              what ``data_check`` proposes for another fleet; what is odd in its columns
``starting_params``, ``adopting``             the parameters that a proposal starts from; what ``adopt`` does to files
``data_pin``, ``pin_rules``, ``pin_making``   ``data.lock.json``: read and checked; new parts of it
``pinned_files``, ``pinned_delta``            the data of a part: files by their digests, Delta tables by version
``places``, ``google_token``                  where a part lies: folder, object store, web server; a login to Google
``request_log``                               the tables of a fleet from its request log
``last_weeks``                                the last two weeks of some tables against what a bundle learned from
``spark_training``, ``spark_rows``            the same on Spark: what this process does, and what executors do
``spark_batch``                               a batch on Spark
``training``, ``thresholds``                  from training rows to fitted heads; the scores from which they alarm
``predictions``                               what a bundle answers for some tables
``provenance``                                the commit, the libraries, and one digest of all inputs
``commits``, ``champion``                     other commits, run with their own code; the model to beat
``decisions``                                 ``decision.json`` and ``accepted.json``, also those of older commits
``sweeping``                                  the points of a sweep, judged on training machines
``searching``                                 what ``automl`` may change, and how a trial is judged
``changes``, ``closing``                      how a run differs from its commit; what it says at its end
``retraining``                                which log a retraining learns from, its pin, its evidence in words
``loop_life``, ``loop_copy``, ``loop_story``  of the demonstration: its fleet, where it runs, what its page tells
``tracking``, ``registry``, ``mlflow_model``  the record of a run, the registry, and the model, in MLflow
============================================  ====================================================================
"""
