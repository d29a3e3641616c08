"""The glue between the library and Snakemake, DVC and the documentation; it affects no number.

=====================================================  ====================
the inputs, parameters and targets of the rules        `workflow.project`
the code that a script runs, an input of its rule      `workflow.code_files`
the modules that a script imports, directly or not     `workflow.closure`
groups that match no parameter, found in a dry run     `workflow.groups`
functions of the user that fail, found by a check      `workflow.user_functions`
jobs that are too large for this machine               `workflow.forecasts`
jobs that are forked, not started                      `workflow.starts`
the process that forks them                            `workflow.fork_server`
logs and records of a job                              `workflow.jobs`
the origin of each output                              `workflow.origins`
restored files, adopted or refused                     `workflow.adopt`
files that are moved out of the way                    `workflow.set_aside`
the stages of dvc.yaml, and the folders that they own  `workflow.stages`
tables in Markdown pages, filled from results          `workflow.pages`
the digests of code and configuration, for DVC         `workflow.sources`
=====================================================  ====================
"""
