"""From the user's folders to batches: pairing, labels, check, split, fingerprint, sampling, augmentation."""
