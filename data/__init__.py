"""From files to batches: reading, data sets, augmentation, sampler."""
