"""The training run: schedule, losses on features, dry run, memory estimate."""
