"""Batch jobs that `runtest submit` hands to Slurm: what is asked for, written, and found again."""
