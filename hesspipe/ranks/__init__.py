"""Processes that work on one computation: they raise errors, compare settings and decide together.

ranks              The processes of a group of `torch.distributed`: `Ranks`
reports            Errors as JSON, from which other processes make their own, and differences
groups             Groups of gloo beside those of GPUs, and whether processes live
interrupts         Ctrl-C after an exchange, not in it
"""
