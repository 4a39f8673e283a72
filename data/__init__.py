"""Everything between files and a batch: datasets, sampler, augmentation, reading."""
