"""Curvature through training: both ends of the spectrum, and what they say of the step size.

monitor            `Monitor`: a record every so many steps, and their table
budget             What a record may take of the time of the training
measurement        What is measured at a record
step_sizes         What an optimizer can take: stability limits and preconditioners
critical           The smallest step along an update that does not decrease the loss
model_state        The model in training, as the objective sees it
state              What a checkpoint keeps of a monitor
changed_models     Models that compute something else than when their objective was built
guards             What a monitor refuses, and errors of records as warnings
record_files       The file of a monitor, which rank 0 reads and writes
records            What was measured at one step, as rows
callbacks          For the Trainers of Lightning and of transformers
"""
