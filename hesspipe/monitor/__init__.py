"""Curvature through training: both ends of the spectrum, and what they say of the step size.

monitor            `Monitor`: a record every so many steps, and their table
step_sizes         What an optimizer can take: stability limits and preconditioners
critical           The smallest step along an update that does not decrease the loss
callbacks          For the Trainers of Lightning and of transformers
"""
