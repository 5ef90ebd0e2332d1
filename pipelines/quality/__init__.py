"""The quality of images and maps: scores, perceptual hashes, near duplicates, and the agreement of two maps."""
