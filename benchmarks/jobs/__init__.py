"""What the jobs are worth, one file each; ``benchmarks/jobs.py`` runs them."""
